package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/config"
)

// notFields are the flags of run that say how it is called, not what machine
// it is.
var notFields = []string{"config", "machine", "print-config", "detach", "state", "timings", "help"}

// fieldNotes is what flags do not know of themselves. A flag without a note is
// a field all the same.
var fieldNotes = map[string]config.Field{
	"kernel":     {Path: true, Words: []string{"lean", "full"}},
	"initrd":     {Path: true},
	"boot":       {Enum: []string{"auto", "linux", "pvh"}},
	"accel":      {Enum: []string{"auto", "kvm", "soft"}},
	"transport":  {Enum: []string{"auto", "mmio", "pci"}},
	"notify":     {Enum: []string{"ioeventfd", "exit"}},
	"console":    {Path: true, Words: []string{"stdio", "none"}},
	"on-reboot":  {Enum: []string{"exit", "restart"}},
	"log-level":  {Enum: []string{"debug", "info", "warn", "error"}},
	"log-format": {Enum: []string{"text", "json"}},
	"hugepages":  {Enum: []string{"off", "thp", "2M"}},
	"vsock":      {Path: true},
	"disk": {Path: true, Item: &config.Item{First: []string{"file"}, Bare: []string{"ro", "direct"},
		Valued: []string{"id", "format", "iops", "bps"}, Comma: ","}},
	"net": {Item: &config.Item{First: []string{"mode"}, Valued: []string{"tap", "bridge", "group", "mac", "bps"}, Comma: ","}},
	"share": {Path: true, Item: &config.Item{First: []string{"dir", "tag"}, Between: ":", Bare: []string{"ro"},
		Comma: ":"}},
	"pmem": {Path: true, Item: &config.Item{First: []string{"file"}, Bare: []string{"ro"}, Comma: ","}},
}

// configFields are the fields of machine files: the flags of run, and the
// command.
func configFields() []config.Field {
	var fields []config.Field
	for _, f := range runFlags() {
		name := f.Names()[0]
		if slices.Contains(notFields, name) {
			continue
		}
		field := fieldNotes[name]
		field.Name = name
		if d, ok := f.(cli.DocGenerationFlag); ok {
			placeholder, rest := placeholderIn(d.GetUsage())
			field.Doc = strings.TrimSpace(placeholder + " " + rest)
		}
		switch f.(type) {
		case *cli.BoolFlag:
			field.Kind = config.Switch
		case *cli.IntFlag:
			field.Kind = config.Number
		case *cli.StringSliceFlag:
			field.Kind = config.List
		}
		fields = append(fields, field)
	}
	return append(fields, config.Field{Name: "command", Kind: config.Words, Doc: "the command that runs in the embedded guest, and its arguments"})
}

// describedMachine is the machine that the flags of c describe. Its paths are
// absolute: they mean the same wherever the description goes.
func describedMachine(c *cli.Context) *config.Machine {
	m := &config.Machine{Command: guestCommand(c)}
	given := givenFlags(c)
	for _, f := range configFields() {
		if !given[f.Name] {
			continue
		}
		values := []string{fmt.Sprint(c.Value(f.Name))}
		if f.Kind == config.List {
			values = c.StringSlice(f.Name)
		}
		for _, v := range values {
			m.Settings = append(m.Settings, config.Setting{Flag: f.Name, Value: f.Absolute(v)})
		}
	}
	return m
}

// describeFlags is that machine as JSON has it, for the machine's record.
func describeFlags(c *cli.Context) any { return config.Describe(describedMachine(c), configFields()) }

// printConfig prints the flags as a machine file.
func printConfig(c *cli.Context) error {
	b, err := config.Write(describedMachine(c), configFields())
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(b)
	return err
}

// loadConfig reads and checks a machine file; "-" is standard input.
func loadConfig(c *cli.Context, path string) (*config.File, error) {
	read, dir := os.ReadFile, filepath.Dir(path)
	if path == "-" {
		read, dir = func(string) ([]byte, error) { return io.ReadAll(c.App.Reader) }, "."
	}
	data, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("machine file: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	f, err := config.Parse(data, configFields(), dir, os.LookupEnv)
	if err == nil {
		if mistakes := checkFlags(f); mistakes != nil {
			err = mistakes
		}
	}
	if err != nil {
		return nil, &configError{path, err}
	}
	return f, nil
}

// configError is a file's mistakes, each with the file's name.
type configError struct {
	path string
	err  error
}

func (e *configError) Error() string {
	var mistakes config.Mistakes
	if !errors.As(e.err, &mistakes) {
		return e.path + ": " + e.err.Error()
	}
	lines := make([]string, len(mistakes))
	for i, m := range mistakes {
		lines[i] = e.path + ": " + m.Error()
	}
	return strings.Join(lines, "\n")
}

func (e *configError) Unwrap() error { return e.err }

// readConfig gives the flags that are not on the command line the values of
// the file that --config names.
func readConfig(c *cli.Context) error {
	if !c.IsSet("config") {
		if c.IsSet("machine") {
			return usagef("add --config FILE", "--machine: there is no file to look in")
		}
		return nil
	}
	f, err := loadConfig(c, c.String("config"))
	if err != nil {
		return err
	}
	m, err := f.Find(c.String("machine"))
	if err != nil {
		return fmt.Errorf("%s: %w", c.String("config"), err)
	}
	given := givenFlags(c)
	for _, s := range m.Settings {
		if given[s.Flag] {
			continue
		}
		if err := c.Set(s.Flag, s.Value); err != nil {
			return &configError{c.String("config"), config.Mistakes{{Line: s.Line, Where: s.Where, Text: err.Error()}}}
		}
	}
	if guestCommand(c) == nil && m.Command != nil {
		c.App.Metadata[commandKey] = m.Command
	}
	return nil
}

// checkFlags has what run itself says about the values: about each alone, so
// that all mistakes come at once, and then about each machine.
func checkFlags(f *config.File) config.Mistakes {
	var mistakes config.Mistakes
	for _, m := range f.Machines {
		found := len(mistakes)
		for _, s := range m.Settings {
			// A root may name a disk.
			if s.Flag == "root" {
				continue
			}
			if err := tryFlags([]config.Setting{s}, nil); err != nil {
				mistakes = append(mistakes, mistakeOf(&s, err))
			}
		}
		if len(mistakes) > found {
			continue
		}
		if err := tryFlags(m.Settings, m.Command); err != nil {
			mistakes = append(mistakes, mistakeOf(blame(&m, err), err))
		}
	}
	return mistakes
}

func mistakeOf(s *config.Setting, err error) config.Mistake {
	return config.Mistake{Line: s.Line, Column: s.Column, Where: s.Where, Text: err.Error()}
}

// blame is the setting whose flag an error begins with, else the machine.
func blame(m *config.Machine, err error) *config.Setting {
	for i := range m.Settings {
		if strings.HasPrefix(err.Error(), "--"+m.Settings[i].Flag) {
			return &m.Settings[i]
		}
	}
	return &config.Setting{Where: m.Name, Line: m.Line}
}

// tryFlags parses settings as if they stood on run's command line.
func tryFlags(settings []config.Setting, command []string) (err error) {
	args := []string{"run"}
	for _, s := range settings {
		args = append(args, "--"+s.Flag+"="+s.Value)
	}
	app := newApp(strings.NewReader(""), io.Discard, io.Discard)
	app.Metadata = map[string]any{commandKey: command}
	app.Commands, app.HideVersion, app.HideHelp = nil, true, true
	app.Flags = runFlags()
	app.Action = func(c *cli.Context) error {
		_, err := parseRunOptions(c)
		return err
	}
	return app.Run(args)
}
