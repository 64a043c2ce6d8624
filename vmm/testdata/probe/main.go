// Command probe is what the guest tests run inside guests: one static program,
// because a guest has no compiler and copying programs into it takes time.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

var jobs = map[string]func(args []string) error{
	"avx":     avx,
	"pin":     pin,
	"discard": discard,
	"trim":    trim,
	"send":    send,
	"receive": receive,
	"lookup":  lookup,
	"udp":     udp,
	"take":    take,
	"give":    give,
	"toil":    toil,
}

func main() {
	if len(os.Args) < 2 || jobs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "probe: no such job")
		os.Exit(2)
	}
	if err := jobs[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// hold loads pattern into YMM8 to YMM15, counts down from turns, and returns
// what the registers hold then.
//
//go:noescape
func hold(pattern *[4]uint64, turns uint64, found *[8][4]uint64)

// avx PATTERN TIME: says how often registers were not what they had been.
func avx(args []string) error {
	seed, err := strconv.ParseUint(args[0], 0, 64)
	if err != nil {
		return err
	}
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	pattern := [4]uint64{seed, seed + 1, seed + 2, seed + 3}
	corrupted, checks := 0, 0
	for began := time.Now(); time.Since(began) < limit; checks++ {
		var found [8][4]uint64
		hold(&pattern, 3_000_000, &found)
		for _, reg := range found {
			if reg != pattern {
				corrupted++
			}
		}
	}
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return err
	}
	fmt.Printf("checks %d corrupted %d switches %d\n", checks, corrupted, use.Nivcsw)
	return nil
}

// pin CPU…: runs on each CPU in turn and says where it ran.
func pin(args []string) error {
	runtime.LockOSThread()
	for _, arg := range args {
		cpu, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		mask := [16]uint64{}
		mask[cpu/64] = 1 << (cpu % 64)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask))); errno != 0 {
			return fmt.Errorf("pin to CPU %d: %w", cpu, errno)
		}
		sum := sha256.Sum256([]byte(arg))
		for range 1000 {
			sum = sha256.Sum256(sum[:])
		}
		var on uint32
		const getCPU = 309
		if _, _, errno := syscall.RawSyscall(getCPU, uintptr(unsafe.Pointer(&on)), 0, 0); errno != 0 {
			return errno
		}
		fmt.Printf("cpu %d sum %x\n", on, sum[:4])
	}
	return nil
}

// discard DEVICE OFFSET LENGTH
func discard(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var span [2]uint64
	for i := range span {
		if span[i], err = strconv.ParseUint(args[1+i], 0, 64); err != nil {
			return err
		}
	}
	const blkDiscard = 0x1277
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), blkDiscard, uintptr(unsafe.Pointer(&span))); errno != 0 {
		return fmt.Errorf("discard: %w", errno)
	}
	return nil
}

// trim FOLDER: has its file system discard what is free.
func trim(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	span := [3]uint64{0, ^uint64(0), 0}
	const fiTrim = 0xc0185879
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), fiTrim, uintptr(unsafe.Pointer(&span))); errno != 0 {
		return fmt.Errorf("trim: %w", errno)
	}
	fmt.Println("trimmed", span[1])
	return nil
}

// send ADDRESS FILE: sends a file and says its SHA-256.
func send(args []string) error {
	f, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := net.DialTimeout("tcp", args[0], 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	return pass(c, f)
}

// receive ADDRESS: takes one connection until its end and says the data's
// SHA-256, to the sender too.
func receive(args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	return pass(io.Discard, c)
}

func pass(w io.Writer, r io.Reader) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), r)
	if err != nil {
		return err
	}
	fmt.Println(n, hex.EncodeToString(h.Sum(nil)))
	return nil
}

// lookup NAME: says its addresses.
func lookup(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, args[0])
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(addrs, " "))
	return nil
}

// udp ADDRESS: answers one datagram with itself.
func udp(args []string) error {
	c, err := net.ListenPacket("udp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Println("listening")
	b := make([]byte, 2048)
	n, from, err := c.ReadFrom(b)
	if err != nil {
		return err
	}
	_, err = c.WriteTo(b[:n], from)
	return err
}

// take TERMINAL BYTES: says the SHA-256 of so many bytes that it reads.
func take(args []string) error {
	n, err := strconv.ParseInt(args[1], 0, 64)
	if err != nil {
		return err
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	if err := makeRaw(f); err != nil {
		return err
	}
	fmt.Println("ready")
	return pass(io.Discard, io.LimitReader(f, n))
}

// give TERMINAL FILE: writes the file to it.
func give(args []string) error {
	f, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer f.Close()
	tty, err := os.OpenFile(args[0], os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	if err := makeRaw(tty); err != nil {
		return err
	}
	return pass(tty, f)
}

// makeRaw has a terminal pass on bytes as they are, as long as it is open.
func makeRaw(f *os.File) error {
	var t syscall.Termios
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&t))); errno != 0 {
		return errno
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cc[syscall.VMIN], t.Cc[syscall.VTIME] = 1, 0
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TCSETS, uintptr(unsafe.Pointer(&t))); errno != 0 {
		return errno
	}
	return nil
}
