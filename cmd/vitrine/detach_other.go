//go:build !unix

package main

import (
	"context"
	"errors"
)

var errNoSessions = errors.New("this system has no sessions: leave --detach out")

func background(context.Context, []string) ([]byte, int, error) { return nil, 0, errNoSessions }

func redirectErrors(string) error { return errNoSessions }
