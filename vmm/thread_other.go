//go:build !linux

package vmm

import "time"

func currentThread() int { return 0 }

func threadTime(int) time.Duration { return 0 }

func ownTime() time.Duration { return 0 }
