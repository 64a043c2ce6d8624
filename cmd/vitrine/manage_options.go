package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
)

// manageOptions are the flags of run that make a machine one of many: its place
// in the run directory, its logs, and what joins it to the host.
type manageOptions struct {
	state  string
	detach bool
	// A command in the background has what attached users type for its
	// standard input, or a terminal.
	interactive, tty bool
	file             any // the machine as a machine file says it, for its record

	logSize   uint64
	fileLevel slog.Level
	logFormat string

	vsock     string // path of the UNIX socket; "" for none
	shares    []shareOption
	balloon   bool
	pmems     []pmemOption
	hugepages string
}

func manageFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "`FILE` that describes the machine; flags beside it win over what it says"},
		&cli.StringFlag{Name: "machine", Usage: "`NAME` of the machine in --config FILE that is meant, where it has several"},
		&cli.BoolFlag{Name: "print-config", Usage: "print the flags as such a file, and run nothing"},
		&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "leave the machine running in the background, and print its name"},
		&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "a command in the background reads what is typed at vitrine attach"},
		&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "a command in the background has a terminal, which vitrine attach joins"},
		stateFlag(),
		&cli.StringFlag{Name: "log-level", Usage: "`LEVEL` from which the machine's log has what the VMM has to say: debug, info, warn or error", Value: "info"},
		&cli.StringFlag{Name: "log-format", Usage: "`FORMAT` of that log: text or json", Value: "text"},
		&cli.StringFlag{Name: "log-size", Usage: "`SIZE` at which a log is turned over; one old one is kept", Value: "10M"},
		&cli.StringFlag{Name: "vsock", Usage: "`PATH` of a UNIX socket that leads to the guest's virtio sockets; the guest's calls come to PATH_PORT"},
		&cli.StringSliceFlag{Name: "share", Usage: "`HOSTDIR:TAG[:ro]` a folder for the guest, over 9P; the embedded guest has it at /mnt/TAG; once for each"},
		&cli.StringSliceFlag{Name: "pmem", Usage: "`FILE`[,ro] as persistent memory, /dev/pmemN; once for each"},
		&cli.BoolFlag{Name: "balloon", Usage: "memory that the guest frees goes back to the host; see vitrine balloon"},
		&cli.StringFlag{Name: "hugepages", Usage: "`WHICH` pages of the host are guest memory: off, thp or 2M", Value: "off"},
	}
}

func (o *runOptions) parseManaged(c *cli.Context) (err error) {
	o.state, o.detach, o.balloon = c.String("state"), c.Bool("detach"), c.Bool("balloon")
	o.interactive, o.tty = c.Bool("interactive"), c.Bool("tty")
	o.logFormat, o.hugepages = c.String("log-format"), c.String("hugepages")
	var ok bool
	if o.fileLevel, ok = logLevels[c.String("log-level")]; !ok {
		return oneOf("--log-level", c.String("log-level"), "debug", "info", "warn", "error")
	}
	if err := oneOf("--log-format", o.logFormat, "text", "json"); err != nil {
		return err
	}
	if err := oneOf("--hugepages", o.hugepages, "off", "thp", "2M"); err != nil {
		return err
	}
	if o.logSize, err = parseSize(c.String("log-size")); err != nil || o.logSize < 1<<20 {
		return usagef("use 1M or more", "--log-size %s: not a size for a log", quote(c.String("log-size")))
	}
	if o.vsock = c.String("vsock"); o.vsock != "" {
		if o.vsock, err = filepath.Abs(o.vsock); err != nil {
			return err
		}
	}
	if err := o.parseShares(c.StringSlice("share")); err != nil {
		return err
	}
	o.file = describeFlags(c)
	return o.parsePMEMs(c.StringSlice("pmem"))
}

// checkManaged refuses what cannot go together; the other options are parsed.
func (o *runOptions) checkManaged() error {
	switch {
	case o.detach && o.console == "stdio":
		return usagef("use vitrine attach or vitrine logs, or --console FILE", "--detach: there is no standard output for the console")
	case o.detach && o.timings:
		return usagef("leave one out", "--detach: nobody is there to see --timings")
	}
	return nil
}

// stateDir is the run directory's path.
func (o *runOptions) stateDir() string {
	if o.state == "" {
		return control.DefaultPath()
	}
	return o.state
}

// keepRecord says whether others are to see how the machine ended.
func (o *runOptions) keepRecord() bool { return o.detach || o.name != "" }

// leftovers are the files outside the machine's folder that a process that is
// killed leaves.
func (o *runOptions) leftovers() []string {
	if o.vsock == "" {
		return nil
	}
	return []string{o.vsock}
}

// shareOption is one --share.
type shareOption struct {
	dir, tag string
	readOnly bool
}

// maxTag is the longest tag of a virtio file share that every driver takes.
const maxTag = 36

func (o *runOptions) parseShares(texts []string) error {
	tags := make(map[string]bool)
	for _, s := range texts {
		const form = "use HOSTDIR:TAG, or HOSTDIR:TAG:ro"
		rest, readOnly := strings.CutSuffix(s, ":ro")
		i := strings.LastIndexByte(rest, ':')
		if i <= 0 {
			return usagef(form, "--share %s: want a folder and a tag", quote(s))
		}
		sh := shareOption{rest[:i], rest[i+1:], readOnly}
		switch {
		case control.CheckName(sh.tag) != nil || len(sh.tag) > maxTag:
			return usagef(fmt.Sprintf("use up to %d letters, digits, '.', '_' and '-'", maxTag), "--share %s: %s is no tag", quote(s), quote(sh.tag))
		case tags[sh.tag]:
			return usagef("give each its own", "--share %s: another share has the tag %s", quote(s), quote(sh.tag))
		}
		tags[sh.tag] = true
		if info, err := os.Stat(sh.dir); err != nil || !info.IsDir() {
			return fmt.Errorf("--share %s: %s is no folder: check the path", quote(s), sh.dir)
		}
		o.shares = append(o.shares, sh)
	}
	return nil
}

// pmemOption is one --pmem.
type pmemOption struct {
	path     string
	readOnly bool
	over     *disk.Layer // what is written goes here and not to the file; nil for the file
}

func (o *runOptions) parsePMEMs(texts []string) error {
	for _, s := range texts {
		t, err := parseOptionText("--pmem", s, []string{"ro"}, false)
		if err != nil {
			return err
		}
		if err := checkFile("--pmem", t.first); err != nil {
			return err
		}
		if t.first == "" {
			return t.mistake("no file", "put it first: --pmem FILE,ro")
		}
		o.pmems = append(o.pmems, pmemOption{path: t.first, readOnly: t.has("ro")})
	}
	return nil
}
