package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// guard is a shell that waits beside the process while the terminal is in raw
// mode, and restores it should the process die before it has: by a panic in any
// goroutine, whose text reaches the guard before the process is gone, or by a
// signal that cannot be caught. Nothing inside the process can do that.
type guard struct {
	word *os.File // "ok" sends the guard away; anything else, and the end, alarms it
	done chan struct{}
}

// guardScript restores the terminal at its standard output unless it is told
// not to. It ignores the signals that may end or stop the process it guards.
const guardScript = `trap '' HUP INT QUIT TERM TSTP TTIN TTOU
read -r word
[ "$word" = ok ] || exec stty "$0" <&1`

// startGuard starts a guard that would put the terminal into its present
// state. Where there is no shell or no stty there is no guard.
func startGuard(tty *os.File) *guard {
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil
	}
	defer r.Close()
	cmd := exec.Command("/bin/sh", "-c", guardScript, sttyState(state))
	cmd.Stdin, cmd.Stdout = r, tty
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil
	}
	_ = debug.SetCrashOutput(w, debug.CrashOptions{})
	g := &guard{word: w, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(g.done)
	}()
	return g
}

// dismiss sends the guard away and waits until it has gone.
func (g *guard) dismiss() {
	if g == nil {
		return
	}
	_ = debug.SetCrashOutput(nil, debug.CrashOptions{})
	_, _ = g.word.WriteString("ok\n")
	_ = g.word.Close()
	<-g.done
}

// controlChars is NCCS of the C libraries, which is more than the kernel's.
const controlChars = 32

// sttyState is a terminal's state as "stty -g" prints it: four words of flags
// and the control characters, in hexadecimal.
func sttyState(t *unix.Termios) string {
	state := fmt.Sprintf("%x:%x:%x:%x", t.Iflag, t.Oflag, t.Cflag, t.Lflag)
	for i := range controlChars {
		c := uint8(0)
		if i < len(t.Cc) {
			c = t.Cc[i]
		}
		state += fmt.Sprintf(":%x", c)
	}
	return state
}
