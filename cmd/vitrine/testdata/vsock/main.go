// Command vsock is a guest's program at a virtio socket, for tests:
//
//	vsock dial CID PORT    standard input goes there, what comes is printed
//	vsock echo PORT        gives one caller back what it sends, says "ready" before
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vsock:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if args[0] == "echo" {
		return echo(fd, number(args[1]))
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: number(args[1]), Port: number(args[2])}); err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "vsock")
	if _, err := io.Copy(f, os.Stdin); err != nil {
		return err
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, f)
	return err
}

func echo(fd int, port uint32) error {
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return err
	}
	fmt.Println("ready")
	caller, _, err := unix.Accept(fd)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(caller), "vsock")
	defer f.Close()
	_, err = io.Copy(f, struct{ io.Reader }{f})
	return err
}

func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vsock:", err)
		os.Exit(2)
	}
	return uint32(n)
}
