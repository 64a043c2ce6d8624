package main

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/disk"
)

// recordedRun is what a recording of a deterministic run keeps, so that its
// machine can be made again.
type recordedRun struct {
	Version int            `json:"version"`
	Maker   string         `json:"maker"`
	Flags   []givenFlag    `json:"flags"`
	Command []string       `json:"command,omitempty"`
	Input   []byte         `json:"input,omitempty"` // what standard input had
	Files   []recordedFile `json:"files,omitempty"`
	Cannot  string         `json:"cannot,omitempty"` // why the machine cannot be made again
}

// recordedFile is a file that the machine read, as it was when the run began,
// and of one that it wrote to, as it was afterwards.
type recordedFile struct {
	Flag   string `json:"flag"`
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	After  string `json:"after,omitempty"`  // SHA-256 after the run
	Before []byte `json:"before,omitempty"` // a disk.Layer, deflated, which over the file as it is then makes it what it was before

	layer *disk.Layer // what makes the file, as it is now, what it was before
}

const recordedRunVersion = 2

// Of what files had before a run, a recording keeps so many blocks of 4 KiB for
// each, as many as a replay can keep of what is written (disk.Layer), and so
// many bytes in all: a record of a stream, with a third more for base64, has at
// most 64 MiB.
const (
	maxBeforeBlocks = 1 << 18
	maxBefore       = 40 << 20
)

// notRecorded are flags that do not change what the guest does, or would change
// the host when the machine is made again.
var notRecorded = []string{"detach", "state", "config", "machine", "print-config", "timings", "warm", "core", "on-crash", "gdb"}

// recordRun reads the flags of a machine, and notes how it is made if it is
// deterministic; if not, run is nil.
func recordRun(c *cli.Context) (run *recordedRun, o *runOptions, err error) {
	if o, err = parseRunOptions(c); err != nil || !o.deterministic {
		return nil, o, err
	}
	run = &recordedRun{Version: recordedRunVersion, Maker: version(), Command: o.command}
	given := givenFlags(c)
	for _, f := range runFlags() {
		name := f.Names()[0]
		if !given[name] || slices.Contains(notRecorded, name) {
			continue
		}
		for _, v := range flagValues(c, f) {
			if name == "console" && v != "stdio" && v != "none" && v != "" {
				v = os.DevNull
			}
			run.Flags = append(run.Flags, givenFlag{name, absoluteValue(name, v)})
		}
	}
	files := []recordedFile{{Flag: "--kernel", Path: o.kernel}, {Flag: "--initrd", Path: o.initrd}}
	for _, d := range o.disks {
		files = append(files, recordedFile{Flag: "--disk", Path: d.Path})
	}
	for _, p := range o.pmems {
		files = append(files, recordedFile{Flag: "--pmem", Path: p.path})
	}
	for _, f := range files {
		if f.Path == "" {
			continue
		}
		f.Path = absolute(f.Path)
		if f.SHA256, err = hashFile(f.Path); err != nil {
			return nil, nil, err
		}
		run.Files = append(run.Files, f)
	}
	return run, o, nil
}

// memories are what a recording remembers, while its machine runs, of the files
// that it writes to.
type memories struct {
	run  *recordedRun
	keep []remembered
	dir  string // of copies; "" if there is none
}

// remembered is one of them: of a disk the blocks that were written to; of
// persistent memory, which a guest writes to without a request, a copy.
type remembered struct {
	file  int // of run.Files
	layer *disk.Layer
	copy  string
}

// remember has what is written to remembered, from the beginning of the run.
func (run *recordedRun) remember(o *runOptions) (*memories, error) {
	m := &memories{run: run}
	disks, pmems := run.filesOf("--disk"), run.filesOf("--pmem")
	for i := range o.disks {
		if d := &o.disks[i]; !d.ReadOnly {
			d.Before = disk.NewLayer()
			m.keep = append(m.keep, remembered{file: disks[i], layer: d.Before})
		}
	}
	for i, p := range o.pmems {
		if p.readOnly {
			continue
		}
		if m.dir == "" {
			var err error
			if m.dir, err = os.MkdirTemp("", "vitrine-record-"); err != nil {
				return nil, fmt.Errorf("--pmem %s: a place for a copy of it: %w", p.path, err)
			}
		}
		path := filepath.Join(m.dir, fmt.Sprint(i))
		if err := disk.Copy(path, p.path); err != nil {
			return nil, errors.Join(fmt.Errorf("--pmem %s: %w", p.path, err), m.close())
		}
		m.keep = append(m.keep, remembered{file: pmems[i], copy: path})
	}
	return m, nil
}

// filesOf are the files of a flag, by their numbers in run.Files.
func (run *recordedRun) filesOf(flag string) (n []int) {
	for i := range run.Files {
		if run.Files[i].Flag == flag {
			n = append(n, i)
		}
	}
	return n
}

func (m *memories) close() error {
	if m.dir == "" {
		return nil
	}
	return os.RemoveAll(m.dir)
}

// finish puts what is remembered into the recording, when the machine has ended.
func (m *memories) finish() error {
	total := 0
	for _, k := range m.keep {
		f := &m.run.Files[k.file]
		if err := f.changed(&k); err != nil {
			return err
		}
		if total += len(f.Before); k.layer.Full() || k.layer.Len() > maxBeforeBlocks || total > maxBefore {
			m.run.Cannot = "its " + f.Flag + " " + f.Path + " was written to, and what it had before is too much to keep: record with " + f.Flag + " FILE,ro"
			f.Before = nil
		}
	}
	return nil
}

// changed notes what a file had before it was written to.
func (f *recordedFile) changed(k *remembered) error {
	if k.copy != "" {
		if err := k.compare(f.Path); err != nil {
			return err
		}
	}
	if k.layer.Len() == 0 || k.layer.Full() {
		return nil
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		return err
	}
	_, err = k.layer.WriteTo(w)
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	f.Before = b.Bytes()
	f.After, err = hashFile(f.Path)
	return err
}

// compare finds out what changed of a file of which there is a copy.
func (k *remembered) compare(path string) error {
	was, err := os.Open(k.copy)
	if err != nil {
		return err
	}
	defer was.Close()
	now, err := os.Open(path)
	if err != nil {
		return err
	}
	defer now.Close()
	info, err := was.Stat()
	if err != nil {
		return err
	}
	k.layer, err = disk.Difference(was, now, info.Size())
	return err
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// keepInput has what is read of standard input kept. A command has no input.
func (run *recordedRun) keepInput(c *cli.Context) {
	if run != nil && run.Command == nil {
		c.App.Reader = io.TeeReader(c.App.Reader, (*keptInput)(run))
	}
}

type keptInput recordedRun

func (k *keptInput) Write(p []byte) (int, error) { k.Input = append(k.Input, p...); return len(p), nil }

// readRecordedRun reads what a recording has of its machine.
func readRecordedRun(b json.RawMessage) (*recordedRun, error) {
	if b == nil {
		return nil, errors.New("only a recording made with --deterministic has what its machine is made of: its devices can be stepped through, its CPUs not")
	}
	run := new(recordedRun)
	if err := json.Unmarshal(b, run); err != nil {
		return nil, fmt.Errorf("the recording's machine: %w", err)
	}
	switch {
	case run.Version != recordedRunVersion:
		return nil, fmt.Errorf("the recording's machine is described in version %d, and this vitrine reads %d", run.Version, recordedRunVersion)
	case run.Cannot != "":
		return nil, fmt.Errorf("the machine cannot be made again: %s", run.Cannot)
	}
	for i := range run.Files {
		if err := run.Files[i].find(); err != nil {
			return nil, err
		}
	}
	return run, nil
}

// find looks for the file, and what makes it what it was before the run.
func (f *recordedFile) find() error {
	sum, err := hashFile(f.Path)
	if err != nil {
		return fmt.Errorf("%s: the machine cannot be made again: %w", f.Flag, err)
	}
	switch sum {
	case f.SHA256:
		f.layer = disk.NewLayer()
	case f.After:
		if f.layer, err = disk.ReadLayer(flate.NewReader(bytes.NewReader(f.Before))); err != nil {
			return fmt.Errorf("%s %s: %w", f.Flag, f.Path, err)
		}
	default:
		return fmt.Errorf("%s %s has changed since the recording: put back what it was, before or after the run, to make the machine again", f.Flag, f.Path)
	}
	return nil
}

// options are those of the run.
func (run *recordedRun) options() (o *runOptions, err error) {
	line := []string{"vitrine", "run"}
	for _, f := range run.Flags {
		if slices.Contains(notRecorded, f.Name) {
			return nil, fmt.Errorf("the recording's machine has --%s, which no recording keeps: it is damaged", f.Name)
		}
		line = append(line, "--"+f.Name+"="+f.Value)
	}
	app := newApp(bytes.NewReader(nil), io.Discard, io.Discard)
	app.Metadata = map[string]any{commandKey: run.Command}
	app.Command("run").Action = func(c *cli.Context) (err error) {
		o, err = parseRunOptions(c)
		return err
	}
	switch err := app.Run(line); {
	case err != nil:
		return nil, fmt.Errorf("the recording's machine: %w", err)
	case o == nil || !o.deterministic:
		return nil, errors.New("the recording's machine is not deterministic")
	}
	return o, run.harmless(o)
}

// harmless has nothing of the host's written to: a recording may come from
// somebody else. What the machine writes to disks and persistent memory is its
// own, over what the files had when the recorded run began.
func (run *recordedRun) harmless(o *runOptions) error {
	before := func(flag string, i int) *disk.Layer {
		if files := run.filesOf(flag); i < len(files) && run.Files[files[i]].layer != nil {
			return run.Files[files[i]].layer
		}
		return disk.NewLayer()
	}
	for i := range o.disks {
		if !o.disks[i].ReadOnly {
			o.disks[i].Over = before("--disk", i)
		}
	}
	for i := range o.pmems {
		o.pmems[i].over = before("--pmem", i)
	}
	switch o.console {
	case "", "stdio", "none", os.DevNull:
		return nil
	}
	return fmt.Errorf("the recording's machine would write to %s", o.console)
}
