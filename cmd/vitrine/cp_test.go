package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/agent"
)

// Frames and modes of docs/agent.md, as a guest writes them.
const (
	frameGet, frameList, frameStat   = 0x04, 0x05, 0x06
	frameEntry, frameData, frameEnd  = 0x47, 0x48, 0x49
	modeFolder, modeFile, modeLink   = 0o040755, 0o100644, 0o120777
	modeSetuid, modeDevice, modeFIFO = 0o104755, 0o020666, 0o010644
)

// lie is a file of a tree that a guest makes up.
type lie struct {
	name, target string
	mode         uint32
	below        []lie
}

// liar is an agent that serves such a tree, whatever the paths: names need not
// be any that a file system has.
func liar(top lie) *agent.Client {
	return agent.New(func(context.Context) (net.Conn, error) {
		host, guest := net.Pipe()
		go func() {
			defer guest.Close()
			var head [8]byte
			if _, err := io.ReadFull(guest, head[:]); err != nil {
				return
			}
			request := make([]byte, binary.LittleEndian.Uint32(head[4:]))
			if _, err := io.ReadFull(guest, request); err != nil {
				return
			}
			_, _ = guest.Write(top.answer(binary.LittleEndian.Uint32(head[:]), string(request)))
			_, _ = io.Copy(io.Discard, guest)
		}()
		return host, nil
	})
}

func (l *lie) answer(kind uint32, request string) (b []byte) {
	// The last path in the request decides; deeper lies have longer ones.
	at := l
	for {
		var next *lie
		for i := range at.below {
			if c := &at.below[i]; strings.Contains(request, c.name) {
				next = c
			}
		}
		if next == nil {
			break
		}
		at = next
	}
	switch kind {
	case frameStat:
		return frame(nil, frameEntry, at.entry())
	case frameList:
		for i := range at.below {
			b = frame(b, frameEntry, at.below[i].entry())
		}
	case frameGet:
		b = frame(b, frameEntry, at.entry())
		b = frame(b, frameData, []byte("evil"))
	}
	return frame(b, frameEnd, nil)
}

func (l *lie) entry() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, l.mode)
	b = le.AppendUint64(b, 0) // owner and group
	b = le.AppendUint64(b, 4)
	b = le.AppendUint64(b, 1e18)
	for _, s := range []string{l.name, l.target} {
		b = append(le.AppendUint16(b, uint16(len(s))), s...)
	}
	return b
}

func frame(b []byte, kind uint32, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// Nothing outside the copy is touched, whatever names and links a guest comes
// up with.
func TestHostileTreesStayInTheirFolder(t *testing.T) {
	for name, below := range map[string][]lie{
		"dot dot":           {{name: "..", mode: modeFolder}, {name: "../victim", mode: modeFile}, {name: ".", mode: modeFolder}},
		"absolute":          {{name: "/tmp/victim", mode: modeFile}, {name: "", mode: modeFile}},
		"folder over link":  {{name: "x", mode: modeLink, target: "../victims"}, {name: "x", mode: modeFolder, below: []lie{{name: "victim", mode: modeFile}}}},
		"file over link":    {{name: "x", mode: modeLink, target: "../victims/victim"}, {name: "x", mode: modeFile}},
		"link to the part":  {{name: "x.vitrine-part", mode: modeLink, target: "../victims/victim"}, {name: "x", mode: modeFile}},
		"absolute link":     {{name: "x", mode: modeLink, target: "/"}, {name: "x", mode: modeFolder, below: []lie{{name: "tmp", mode: modeFolder}}}},
		"devices":           {{name: "x", mode: modeDevice}, {name: "y\x1b[2J", mode: modeFIFO}},
		"control character": {{name: "a\nb\x1b[2J", mode: modeFile}},
		"set-user-ID":       {{name: "x", mode: modeSetuid}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			victims := filepath.Join(dir, "victims")
			for _, err := range []error{
				os.Mkdir(victims, 0o700),
				os.WriteFile(filepath.Join(victims, "victim"), []byte("good"), 0o600),
				os.WriteFile(filepath.Join(dir, "victim"), []byte("good"), 0o600),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			var errs syncBuffer
			cp := &copier{agent: liar(lie{name: "tree", mode: modeFolder, below: below}), errOut: &errs}
			err := cp.fromGuest(context.Background(), "/tree", filepath.Join(dir, "copy"))
			t.Logf("%v; %q", err, errs.String())
			for _, path := range []string{filepath.Join(victims, "victim"), filepath.Join(dir, "victim")} {
				if b, err := os.ReadFile(path); err != nil || string(b) != "good" {
					t.Errorf("%s: %q, %v", path, b, err)
				}
			}
			if info, err := os.Stat(victims); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("the folder beside: %v, %v", info.Mode(), err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) > 3 {
				t.Errorf("beside the copy: %v, %v", entries, err)
			}
			if entries, err := os.ReadDir(victims); err != nil || len(entries) != 1 {
				t.Errorf("in the folder beside: %v, %v", entries, err)
			}
			_ = filepath.WalkDir(filepath.Join(dir, "copy"), func(p string, d os.DirEntry, err error) error {
				if err != nil {
					return nil
				}
				if info, err := d.Info(); err == nil && info.Mode()&(os.ModeDevice|os.ModeNamedPipe|os.ModeSetuid|os.ModeSetgid) != 0 {
					t.Errorf("%s: %v", p, info.Mode())
				}
				return nil
			})
			if strings.ContainsAny(errs.String(), "\x1b") {
				t.Errorf("the terminal gets %q", errs.String())
			}
		})
	}
}

// A tree without an end has one all the same.
func TestEndlessTreeEnds(t *testing.T) {
	cp := &copier{agent: liarWithoutEnd(), errOut: io.Discard}
	err := cp.fromGuest(context.Background(), "/d", filepath.Join(t.TempDir(), "copy"))
	if err == nil || !strings.Contains(err.Error(), "folders deep") {
		t.Errorf("ended with %v", err)
	}
}

// A listing without an end has one, too, before it takes the host's memory.
func TestEndlessListingEnds(t *testing.T) {
	name := strings.Repeat("n", 4000)
	entry := frame(nil, frameEntry, (&lie{name: name, mode: modeFile}).entry())
	cp := &copier{errOut: io.Discard, agent: agent.New(func(context.Context) (net.Conn, error) {
		host, guest := net.Pipe()
		go func() {
			defer guest.Close()
			for kind := readRequest(guest); ; {
				top := frame(nil, frameEntry, (&lie{name: "d", mode: modeFolder}).entry())
				if kind == frameList {
					top = entry
				}
				if _, err := guest.Write(top); err != nil {
					return
				}
			}
		}()
		return host, nil
	})}
	err := cp.fromGuest(context.Background(), "/d", filepath.Join(t.TempDir(), "copy"))
	if err == nil || !strings.Contains(err.Error(), "too many at once") {
		t.Errorf("ended with %v", err)
	}
	if cp.listed != 0 {
		t.Errorf("%d bytes are held in the end", cp.listed)
	}
}

// readRequest returns the type of a request.
func readRequest(c net.Conn) uint32 {
	var head [8]byte
	_, _ = io.ReadFull(c, head[:])
	_, _ = io.CopyN(io.Discard, c, int64(binary.LittleEndian.Uint32(head[4:])))
	return binary.LittleEndian.Uint32(head[:])
}

// liarWithoutEnd has a folder in every folder.
func liarWithoutEnd() *agent.Client {
	folder := lie{name: "d", mode: modeFolder}
	return agent.New(func(context.Context) (net.Conn, error) {
		host, guest := net.Pipe()
		go func() {
			defer guest.Close()
			kind := readRequest(guest)
			b := frame(nil, frameEntry, folder.entry())
			if kind == frameList {
				b = frame(b, frameEnd, nil)
			}
			_, _ = guest.Write(b)
			_, _ = io.Copy(io.Discard, guest)
		}()
		return host, nil
	})
}
