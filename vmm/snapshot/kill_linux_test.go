package snapshot

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// writerEnv makes the test program a writer of snapshots, to be killed.
const writerEnv = "SNAPSHOT_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		for i := uint64(0); ; i++ {
			w, err := Create(dir)
			if err != nil {
				panic(err)
			}
			if err := w.WriteMemory([]Part{{Bytes: ram(i % 2)}}, allPages(), false); err != nil {
				panic(err)
			}
			if err := w.Commit(sampleState()); err != nil {
				panic(err)
			}
		}
	}
	os.Exit(m.Run())
}

// Whenever a writer is killed, the snapshot is one of those that it wrote, and
// what it was writing goes away with the next one.
func TestKilledWriter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	write(t, dir, ram(0))
	for range 15 {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), writerEnv+"="+dir)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(5+rand.IntN(40)) * time.Millisecond)
		_ = c.Process.Kill()
		_ = c.Wait()
		if got := contents(t, dir); !bytes.Equal(got, ram(0)) && !bytes.Equal(got, ram(1)) {
			t.Fatal("neither the old snapshot nor the new one")
		}
	}
	write(t, dir, ram(1))
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
