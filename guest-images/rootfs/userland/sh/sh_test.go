package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The test program is the shell too.
func TestMain(m *testing.M) {
	if os.Getenv("BE_SH") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestScripts(t *testing.T) {
	for _, test := range []struct {
		args   []string
		in     string
		out    string
		status int
	}{
		{[]string{"-c", "echo a; exit 7"}, "", "a\n", 7},
		{[]string{"-c", "false"}, "", "", 1},
		{[]string{"-c", "echo $1 $#", "name", "x y", "z"}, "", "x y 2\n", 0},
		{[]string{"-ec", "false; echo no"}, "", "", 1},
		{[]string{"-c", "kill -9 $$"}, "", "", 137},
		{[]string{"-c", "no-such-program"}, "", "", 127},
		{[]string{"-c", "echo 'unfinished"}, "", "", 2},
		{nil, "read x\nthe line\necho got $x\nexit 4\necho no\n", "got the line\n", 4},
		{nil, "for i in 1 2\ndo echo $i\ndone\n", "1\n2\n", 0},
		{[]string{"-c", "seq 9 | head -3; seq 9 | tail -1"}, "", "1\n2\n3\n9\n", 0},
		{[]string{"-c", "printf 'aa\nbb\n' | grep -vE a"}, "", "bb\n", 0},
		{[]string{"-c", "d=$(mktemp -d) && touch $d/f && ls $d && rm -r $d; [ -e $d ]"}, "", "f\n", 1},
		{[]string{"-c", "cat; echo x | cat -"}, "in", "inx\n", 0},
	} {
		cmd := exec.Command(os.Args[0], test.args...)
		cmd.Env = append(os.Environ(), "BE_SH=1")
		cmd.Stdin = strings.NewReader(test.in)
		var out bytes.Buffer
		cmd.Stdout = &out
		_ = cmd.Run()
		status := cmd.ProcessState.ExitCode()
		if !cmd.ProcessState.Exited() {
			status = 137
		}
		if status != test.status || out.String() != test.out {
			t.Errorf("%q %q: %d, %q; want %d, %q", test.args, test.in, status, out.String(), test.status, test.out)
		}
	}
}
