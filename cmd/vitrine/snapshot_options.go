package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/disk"
	"github.com/vitrine-vmm/vitrine/vmm/usernet"
)

// snapshotOptions are the parts of runOptions that snapshots need: the flags as
// they were given, for a machine that is restored is made by the same ones, and
// what is to be restored.
type snapshotOptions struct {
	given  []givenFlag
	warm   bool
	warmAt warmPoint
	saved  *restoring // nil: the machine boots
}

// givenFlag is a flag and a value that it was given.
type givenFlag struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// savedRun is what a snapshot keeps of how its machine was made.
type savedRun struct {
	Version int         `json:"version"`
	Flags   []givenFlag `json:"flags"`
	Disks   []savedDisk `json:"disks,omitempty"` // in the order of --disk
	Command []string    `json:"command,omitempty"`
	Agent   bool        `json:"agent"` // the guest's agent listened

	// Exec is the host's port of the connection of the program that goes on,
	// of a machine that --warm-at keeps.
	Exec uint32 `json:"exec,omitempty"`

	// What the guest was told of its network, if it has a user network.
	Interface string `json:"interface,omitempty"`
	MAC       string `json:"mac,omitempty"`
	Address   string `json:"address,omitempty"`
	Gateway   string `json:"gateway,omitempty"`
	DNS       string `json:"dns,omitempty"`

	Connections []usernet.Connection `json:"connections,omitempty"` // through it
}

// savedDisk is a disk in a snapshot.
type savedDisk struct {
	File   string      `json:"file,omitempty"` // in the snapshot's folder; "" for one that is only read
	Format disk.Format `json:"format,omitempty"`
}

const savedRunVersion = 1

// decodeSavedRun reads what a snapshot keeps for this program.
func decodeSavedRun(b json.RawMessage) (*savedRun, error) {
	s := new(savedRun)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("it was not made by vitrine snapshot: %w", err)
	}
	if s.Version != savedRunVersion {
		return nil, fmt.Errorf("made by a vitrine that keeps settings in version %d, and this one reads %d", s.Version, savedRunVersion)
	}
	for _, d := range s.Disks {
		if d.File != "" && d.File != filepath.Base(d.File) {
			return nil, fmt.Errorf("a disk outside the snapshot: %q", d.File)
		}
	}
	return s, nil
}

func snapshotFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "warm", Usage: "go on from where an earlier machine of this kind had booted; the first one boots and is kept. See vitrine cache"},
		&cli.StringFlag{Name: "warm-at", Usage: "`MOMENT` of --warm, later: ready (the command makes " + readyFile + "), listen:PORT or line:TEXT"},
	}
}

// ofOneRun are flags that belong to a run and not to the machine.
var ofOneRun = []string{"name", "detach", "state", "config", "machine", "print-config", "timings", "verbose", "warm", "warm-at"}

// savedKey is where app.Metadata has the *restoring of a run that restores.
const savedKey = "saved"

// parseSnapshot notes the flags, and what is to be restored.
func (o *runOptions) parseSnapshot(c *cli.Context) error {
	o.saved, _ = c.App.Metadata[savedKey].(*restoring)
	var err error
	if o.warmAt, err = parseWarmPoint(c.String("warm-at")); err != nil {
		return err
	}
	o.warm = c.Bool("warm") || o.warmAt.text != ""
	given := givenFlags(c)
	for _, f := range runFlags() {
		name := f.Names()[0]
		if !given[name] || slices.Contains(ofOneRun, name) {
			continue
		}
		for _, v := range flagValues(c, f) {
			o.given = append(o.given, givenFlag{name, absoluteValue(name, v)})
		}
	}
	return o.checkWarm()
}

// flagValues are the values that a flag has, as text.
func flagValues(c *cli.Context, f cli.Flag) []string {
	name := f.Names()[0]
	switch f.(type) {
	case *cli.StringSliceFlag:
		return c.StringSlice(name)
	case *cli.BoolFlag:
		return []string{strconv.FormatBool(c.Bool(name))}
	case *cli.StringFlag:
		return []string{c.String(name)}
	}
	return []string{fmt.Sprint(c.Value(name))}
}

// absoluteValue makes the path that a flag's value is, or begins with, one that
// is right in every folder.
func absoluteValue(name, v string) string {
	switch name {
	case "kernel", "console":
		if slices.Contains([]string{"lean", "full", "stdio", "none", ""}, v) {
			return v
		}
	case "initrd", "vsock", "core":
	case "disk", "pmem":
		first := splitCommas(v)[0]
		rest := strings.TrimPrefix(v, strings.ReplaceAll(first, ",", ",,"))
		return strings.ReplaceAll(absolute(first), ",", ",,") + rest
	case "share":
		i := strings.LastIndexByte(strings.TrimSuffix(v, ":ro"), ':')
		if i > 0 {
			return absolute(v[:i]) + v[i:]
		}
		return v
	default:
		return v
	}
	return absolute(v)
}

func absolute(path string) string {
	if path == "" {
		return path
	}
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

// diskText is a --disk for the disk o.
func diskText(o *disk.Options) string {
	var b strings.Builder
	b.WriteString(strings.ReplaceAll(o.Path, ",", ",,"))
	if o.ReadOnly {
		b.WriteString(",ro")
	}
	if o.Direct {
		b.WriteString(",direct")
	}
	for _, s := range []struct{ key, value string }{{"id", o.ID}, {"format", string(o.Format)}} {
		if s.value != "" {
			fmt.Fprintf(&b, ",%s=%s", s.key, strings.ReplaceAll(s.value, ",", ",,"))
		}
	}
	if o.IOPS != 0 {
		fmt.Fprintf(&b, ",iops=%d", o.IOPS)
	}
	if o.BPS != 0 {
		fmt.Fprintf(&b, ",bps=%d", o.BPS)
	}
	return b.String()
}

// lateFlags sets the flags that stand behind a command's arguments, where the
// library for flags does not look, and returns the arguments.
func lateFlags(c *cli.Context) (args []string, err error) {
	rest := c.Args().Slice()
	for i := 0; i < len(rest); i++ {
		name, value, has := strings.Cut(strings.TrimLeft(rest[i], "-"), "=")
		if !strings.HasPrefix(rest[i], "-") || rest[i] == "-" {
			args = append(args, rest[i])
			continue
		}
		j := slices.IndexFunc(c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if j < 0 {
			return nil, usagef("see vitrine "+c.Command.FullName()+" --help", "there is no flag %s", rest[i])
		}
		f := c.Command.Flags[j]
		if _, isSwitch := f.(*cli.BoolFlag); isSwitch && !has {
			value, has = "true", true
		}
		if !has {
			if i++; i == len(rest) {
				return nil, usagef("see vitrine "+c.Command.FullName()+" --help", "%s needs a value", rest[i-1])
			}
			value = rest[i]
		}
		if err := c.Set(f.Names()[0], value); err != nil {
			return nil, usagef("see vitrine "+c.Command.FullName()+" --help", "%s: %w", rest[i], err)
		}
	}
	return args, nil
}
