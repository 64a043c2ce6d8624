package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"
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

// recordedFile is a file that the machine read, as it was when the run began.
type recordedFile struct {
	Flag   string `json:"flag"`
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

const recordedRunVersion = 1

// notRecorded are flags that do not change what the guest does, or would change
// the host when the machine is made again.
var notRecorded = []string{"detach", "state", "config", "machine", "print-config", "timings", "warm", "core", "on-crash", "gdb"}

// recordRun notes how the machine of a deterministic recording is made. input
// returns what has been read of standard input.
func recordRun(c *cli.Context) (run *recordedRun, err error) {
	o, err := parseRunOptions(c)
	if err != nil || !o.deterministic {
		return nil, err
	}
	run = &recordedRun{Version: recordedRunVersion, Maker: version(), Command: o.command}
	for _, f := range runFlags() {
		name := f.Names()[0]
		if !c.IsSet(name) || slices.Contains(notRecorded, name) {
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
		if !d.ReadOnly {
			run.Cannot = "its --disk " + d.Path + " was written to: record with --disk FILE,ro to go back"
		}
	}
	if len(c.StringSlice("pmem")) > 0 {
		run.Cannot = "its --pmem was written to"
	}
	for _, f := range files {
		if f.Path == "" {
			continue
		}
		f.Path = absolute(f.Path)
		if f.SHA256, err = hashFile(f.Path); err != nil {
			return nil, err
		}
		run.Files = append(run.Files, f)
	}
	return run, nil
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
	for _, f := range run.Files {
		sum, err := hashFile(f.Path)
		if err != nil {
			return nil, fmt.Errorf("%s: the machine cannot be made again: %w", f.Flag, err)
		}
		if sum != f.SHA256 {
			return nil, fmt.Errorf("%s %s has changed since the recording: put back what it was to make the machine again", f.Flag, f.Path)
		}
	}
	return run, nil
}

// options are those of the run.
func (run *recordedRun) options() (o *runOptions, err error) {
	line := []string{"vitrine", "run"}
	for _, f := range run.Flags {
		if slices.Contains(notRecorded, f.Name) || f.Name == "pmem" {
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

// harmless refuses what would write to the host's files: a recording may come
// from somebody else.
func (run *recordedRun) harmless(o *runOptions) error {
	for _, d := range o.disks {
		if !d.ReadOnly {
			return fmt.Errorf("the recording's machine would write to %s", d.Path)
		}
	}
	switch o.console {
	case "", "stdio", "none", os.DevNull:
		return nil
	}
	return fmt.Errorf("the recording's machine would write to %s", o.console)
}
