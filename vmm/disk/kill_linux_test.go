package disk

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk/blktest"
)

// Environment of the process that is killed: the disk's path and format.
const killPath, killFormat = "VITRINE_TEST_KILL_PATH", "VITRINE_TEST_KILL_FORMAT"

const (
	killDisk  = 4 << 20
	killBlock = 4096
)

// block is what round n writes to block i.
func block(n, i int) []byte {
	return bytes.Repeat([]byte{byte(n), byte(n >> 8), byte(i), byte(i >> 8)}, killBlock/4)
}

// blocksOf are the blocks that round n writes.
func blocksOf(n int) []int {
	r := rand.New(rand.NewPCG(uint64(n), 2))
	return r.Perm(killDisk / killBlock)[:8]
}

// TestMain is the process that is killed, if it was started as that: it writes
// for ever, several requests at once, and says when a flush is done.
func TestMain(m *testing.M) {
	path := os.Getenv(killPath)
	if path == "" {
		os.Exit(m.Run())
	}
	b, err := Open(Options{Path: path, Format: Format(os.Getenv(killFormat))})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	done := make(chan error, 16)
	c, err := b.Open(context.Background(), 16, func(rs []*blk.Request) {
		for _, r := range rs {
			done <- r.Err
		}
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for n := 1; ; n++ {
		is := blocksOf(n)
		for _, i := range is {
			c.Submit(&blk.Request{Op: blk.OpWrite, Offset: int64(i) * killBlock, Length: killBlock, Vec: [][]byte{block(n, i)}})
		}
		c.Kick()
		for range is {
			if err := <-done; err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		c.Submit(&blk.Request{Op: blk.OpFlush})
		c.Kick()
		if err := <-done; err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("flushed", n)
	}
}

// TestKilled kills the process that has a disk open, at some moment: what a
// flush acknowledged is there, the lock is gone.
func TestKilled(t *testing.T) {
	for _, format := range []Format{Raw, QCOW2} {
		for _, rounds := range []int{1, 7, 40} {
			path := newFile(t, t.TempDir(), 0)
			mustDo(t, os.Remove(path), Create(path, killDisk, format))
			last := killAfter(t, path, format, rounds)
			want := make(map[int]int) // the last round that wrote a block
			for n := 1; n <= last; n++ {
				for _, i := range blocksOf(n) {
					want[i] = n
				}
			}
			b := mustOpen(t, Options{Path: path, Format: format})
			for i, n := range want {
				got := make([]byte, killBlock)
				blktest.Do(t, b, &blk.Request{Op: blk.OpRead, Offset: int64(i) * killBlock, Vec: [][]byte{got}})
				if !bytes.Equal(got, block(n, i)) && !laterRound(got, n, i) {
					t.Errorf("%s: block %d does not have what round %d of %d wrote", format, i, n, last)
				}
			}
			mustDo(t, b.Close())
			if _, err := exec.LookPath("qemu-img"); err == nil && format == QCOW2 {
				// Exit status 3 says that clusters are lost, and nothing else.
				out, err := exec.Command("qemu-img", "check", path).CombinedOutput()
				if code, ok := err.(*exec.ExitError); err != nil && (!ok || code.ExitCode() != 3) {
					t.Errorf("qemu-img check: %v\n%s", err, out)
				}
			}
		}
	}
}

// laterRound says whether p is a whole block of the rounds that may have begun
// after the last flush.
func laterRound(p []byte, n, i int) bool {
	for later := n + 1; later < n+1000; later++ {
		if bytes.Equal(p, block(later, i)) {
			return true
		}
	}
	return false
}

// killAfter starts the process and kills it after some flushes. It returns the
// last that was acknowledged.
func killAfter(t *testing.T, path string, format Format, rounds int) (last int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killPath+"="+path, killFormat+"="+string(format))
	out, err := cmd.StdoutPipe()
	mustDo(t, err, cmd.Start())
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		if _, err := fmt.Sscanf(strings.TrimSpace(sc.Text()), "flushed %d", &last); err != nil {
			t.Errorf("the process says %q", sc.Text())
		}
		if last == rounds {
			mustDo(t, cmd.Process.Kill())
		}
	}
	_ = cmd.Wait()
	if last < rounds {
		t.Fatalf("the process ended after %d rounds", last)
	}
	return last
}

func mustDo(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
