package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY returns both ends of a new pseudo terminal.
func openPTY(t *testing.T) (master, tty *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return master, tty
}

func settings(t *testing.T, tty *os.File) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func TestTerminalIsRestored(t *testing.T) {
	_, tty := openPTY(t)
	before := settings(t, tty)
	term := newTerminal(tty)
	for range 2 { // a guest that reboots needs it again
		if err := term.MakeRaw(); err != nil {
			t.Fatal(err)
		}
		if settings(t, tty) == before || !term.Raw() {
			t.Fatal("not in raw mode")
		}
		term.Close()
		term.Close()
		if settings(t, tty) != before || term.Raw() {
			t.Fatal("not restored")
		}
	}
}

func TestTerminalSize(t *testing.T) {
	_, tty := openPTY(t)
	term := newTerminal(tty)
	if s := term.Size(); s.Cols != 80 || s.Rows != 24 {
		t.Errorf("without a size: %+v", s)
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132}); err != nil {
		t.Fatal(err)
	}
	if s := term.Size(); s.Cols != 132 || s.Rows != 50 {
		t.Errorf("%+v, want 132×50", s)
	}
}

// dieEnv makes the test binary a process that dies in raw mode.
const dieEnv = "VITRINE_TEST_DIE"

func init() {
	beforeTests = func() {
		if how := os.Getenv(dieEnv); how != "" {
			dieInRawMode(how)
		}
	}
}

func dieInRawMode(how string) {
	if err := newTerminal(os.Stdin).MakeRaw(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("raw")
	if how == "panic" {
		go func() { panic("a bug, in a goroutine of somebody else's") }()
	}
	select {}
}

func TestTerminalOfADeadProcessIsRestored(t *testing.T) {
	for _, how := range []string{"panic", "kill"} {
		t.Run(how, func(t *testing.T) {
			_, tty := openPTY(t)
			before := settings(t, tty)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), dieEnv+"="+how)
			cmd.Stdin = tty
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 4)
			if _, err := io.ReadFull(out, line); err != nil || string(line) != "raw\n" {
				t.Fatalf("said %q, %v", line, err)
			}
			if how == "kill" {
				if settings(t, tty) == before {
					t.Fatal("not in raw mode")
				}
				_ = cmd.Process.Kill()
			}
			if cmd.Wait() == nil {
				t.Fatal("it did not die")
			}
			for deadline := time.Now().Add(20 * time.Second); settings(t, tty) != before; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("not restored: %+v, was %+v", settings(t, tty), before)
				}
			}
		})
	}
}
