package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/docs/labs"
)

// deviceFolder has lab 5: devices of the learner's own.
const deviceFolder = "05-mmio"

// buildError is what the Go tool says of a device that does not build.
type buildError struct{ said string }

func (e *buildError) Error() string { return "the device does not build:\n" + e.said }

// buildDevice makes a program of a device's source and the one around it, in
// dir.
func buildDevice(ctx context.Context, dir string, source []byte) (program string, err error) {
	around, err := labs.Files.ReadFile(deviceFolder + "/main.go")
	if err != nil {
		return "", err
	}
	for name, b := range map[string][]byte{"main.go": around, "device.go": source} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return "", err
		}
	}
	program = filepath.Join(dir, "device")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	c := exec.CommandContext(ctx, "go", "build", "-o", program, "main.go", "device.go")
	c.Dir = dir
	c.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GO111MODULE=on", "GOOS=", "GOARCH=", "CGO_ENABLED=0")
	said, err := c.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("go is not installed: devices of lab 5 are built by the Go tool, see https://go.dev/dl")
	case errors.As(err, &exit):
		text := strings.TrimPrefix(strings.TrimSpace(string(said)), "# command-line-arguments\n")
		return "", &buildError{text}
	}
	return program, err
}

// access is one that a guest made to a device.
type access struct {
	offset uint64
	data   []byte
	write  bool
	lost   bool // nobody answered
}

func (a access) String() string {
	verb := "read"
	if a.write {
		verb = "write"
	}
	plural := "s"
	if len(a.data) == 1 {
		plural = ""
	}
	return fmt.Sprintf("%s of %d byte%s at %#x", verb, len(a.data), plural, a.offset)
}

func (a access) value() uint64 {
	var b [8]byte
	copy(b[:], a.data)
	return binary.LittleEndian.Uint64(b[:])
}

// device is a learner's device in a process of its own; it is a bus.Device.
type device struct {
	limit time.Duration // for an answer
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   io.ReadCloser

	mu       sync.Mutex
	printed  output // by the device
	accesses []access
	err      error // why it answers no more
}

// maxAccesses bounds what is kept of a guest that does not end.
const maxAccesses = 4096

func startDevice(ctx context.Context, program string, limit time.Duration) (*device, error) {
	d := &device{limit: limit, cmd: exec.CommandContext(ctx, program)}
	d.cmd.Stderr = &d.printed
	var err error
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if d.out, err = d.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	return d, d.cmd.Start()
}

// close ends the device.
func (d *device) close() {
	_ = d.in.Close()
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// Read implements bus.Device.
func (d *device) Read(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := access{offset: off, data: make([]byte, len(p))}
	answer, ok := d.ask(a)
	if !ok {
		answer = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	copy(a.data, answer[:])
	a.lost = !ok
	copy(p, a.data)
	d.keep(a)
}

// Write implements bus.Device.
func (d *device) Write(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := access{offset: off, data: bytes.Clone(p), write: true}
	_, ok := d.ask(a)
	a.lost = !ok
	d.keep(a)
}

func (d *device) keep(a access) {
	if len(d.accesses) < maxAccesses {
		d.accesses = append(d.accesses, a)
	}
}

// ask has the device make the access. A device that has failed is not asked
// any more.
func (d *device) ask(a access) (answer [8]byte, ok bool) {
	if d.err != nil || len(a.data) > len(answer) {
		return answer, false
	}
	var b [18]byte
	if a.write {
		b[0] = 1
	}
	b[1] = byte(len(a.data))
	binary.LittleEndian.PutUint64(b[2:], a.offset)
	copy(b[10:], a.data)
	// The device may never answer: the vCPU, which waits here, must go on.
	late := time.AfterFunc(d.limit, func() { _ = d.cmd.Process.Kill() })
	_, err := d.in.Write(b[:])
	if err == nil {
		_, err = io.ReadFull(d.out, answer[:])
	}
	switch onTime := late.Stop(); {
	case !onTime:
		d.err = fmt.Errorf("the device did not answer a %v within %v", a, d.limit)
	case err != nil:
		_ = d.cmd.Wait() // for what it printed
		d.err = fmt.Errorf("the device has ended: %s", d.lastWords())
	}
	return answer, d.err == nil
}

// lastWords are the first lines that matter of what the device printed.
func (d *device) lastWords() string {
	text := strings.TrimSpace(d.printed.String())
	if i := strings.Index(text, "panic: "); i >= 0 {
		text = text[i:]
	}
	var lines []string
	for l := range strings.Lines(text) {
		if strings.Contains(l, "main.go:") {
			break
		}
		if at := strings.Index(l, "device.go:"); at >= 0 {
			l = "    " + l[at:]
		} else if len(lines) > 0 {
			continue
		}
		lines = append(lines, strings.TrimRight(l, "\n"))
	}
	if len(lines) == 0 {
		return "it said nothing"
	}
	return strings.Join(lines, "\n")
}
