package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
)

func snapshotCommand() *cli.Command {
	return &cli.Command{
		Name: "snapshot", ArgsUsage: "NAME DIR", OnUsageError: onUsageError,
		Usage: "save a machine in a folder, for vitrine restore",
		Description: "The machine stands while its memory and the disks that it writes to are copied, and goes on.\n" +
			"A snapshot that is in DIR is replaced when the new one is whole.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "stop", Usage: "end the machine then"},
			&cli.StringFlag{Name: "diff", Usage: "`BASE`, an earlier snapshot of this machine: save only what has changed since"},
			stateFlag(),
		},
		BashComplete: completeNames,
		Subcommands:  []*cli.Command{snapshotInspectCommand()},
		Action:       snapshotAction,
	}
}

func snapshotAction(c *cli.Context) error {
	args, err := lateFlags(c)
	if err != nil {
		return err
	}
	if len(args) != 2 {
		return usagef("vitrine snapshot NAME DIR", "vitrine snapshot: want a machine and a folder")
	}
	if control.CheckName(args[0]) != nil {
		return usagef("vitrine ps lists machines", "%q is no name of a machine", args[0])
	}
	dir, err := openState(c)
	if err != nil {
		return err
	}
	client, err := dir.Client(args[0])
	if err != nil {
		return err
	}
	var saved vmm.Saved
	req := snapshotRequest{Dir: absolute(args[1]), Base: absolute(c.String("diff")), Stop: c.Bool("stop"), Track: true}
	if err := client.Action(c.Context, "snapshot", req, &saved); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "saved %s of memory; the guest stood for %s\n", formatSize(saved.Stored), milliseconds(saved.Paused))
	return err
}

func snapshotInspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", ArgsUsage: "DIR", OnUsageError: onUsageError,
		Usage: "say what a snapshot has, and whether this host can restore it",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "verify", Usage: "read all of memory and compare its checksums"},
			&cli.BoolFlag{Name: "json", Usage: "as JSON"},
		},
		Action: func(c *cli.Context) error {
			args, err := lateFlags(c)
			if err != nil {
				return err
			}
			if len(args) != 1 {
				return usagef("vitrine snapshot inspect DIR", "vitrine snapshot inspect: want the folder of one snapshot")
			}
			s, err := snapshot.Open(args[0])
			if err != nil {
				return err
			}
			defer s.Close()
			if c.Bool("verify") {
				if err := s.Verify(); err != nil {
					return err
				}
			}
			d := describeSnapshot(s)
			if c.Bool("json") {
				e := json.NewEncoder(c.App.Writer)
				e.SetIndent("", "  ")
				return e.Encode(d)
			}
			return d.print(c.App.Writer, c.Bool("verify"))
		},
	}
}

// snapshotInfo is what there is to say of a snapshot.
type snapshotInfo struct {
	Path      string    `json:"path"`
	ID        string    `json:"id"`
	Format    int       `json:"format"`
	Created   time.Time `json:"created"`
	Maker     string    `json:"maker"`
	Base      []string  `json:"base,omitempty"` // the snapshots below, the nearest first
	Machine   string    `json:"machine"`
	Accel     string    `json:"accel"`
	CPUs      int       `json:"cpus"`
	Memory    uint64    `json:"memory"`
	Stored    uint64    `json:"stored"` // bytes of memory in this one
	OnDisk    uint64    `json:"onDisk"`
	Transport string    `json:"transport"`
	Devices   []string  `json:"devices"`
	Image     string    `json:"image,omitempty"`
	Command   []string  `json:"command,omitempty"`
	Problem   string    `json:"problem,omitempty"` // why it cannot be restored here
}

func describeSnapshot(s *snapshot.Snapshot) *snapshotInfo {
	m := &s.State.Machine
	d := &snapshotInfo{
		Path: s.Path, ID: s.ID.String(), Format: snapshot.Version, Created: s.State.Created, Maker: s.State.Maker,
		Machine: m.Name, Accel: m.Accel, CPUs: m.CPUs, Memory: m.Memory, Stored: s.Stored(), OnDisk: s.Disk(), Transport: m.Transport,
	}
	for b := s.Base; b != nil; b = b.Base {
		d.Base = append(d.Base, b.Path)
	}
	for _, v := range s.State.Devices {
		d.Devices = append(d.Devices, v.Name)
	}
	var image *snapshot.Image
	for _, r := range s.State.Memory {
		if r.Image != nil {
			image, d.Image = r.Image, r.Image.Path
		}
	}
	if run, err := decodeSavedRun(s.State.App); err != nil {
		d.Problem = err.Error()
	} else {
		d.Command = run.Command
	}
	if err := restorable(s, image); err != nil {
		d.Problem = err.Error()
	}
	return d
}

// restorable says why this host cannot restore s, if so.
func restorable(s *snapshot.Snapshot, image *snapshot.Image) error {
	if err := vmm.CheckHost(s.State); err != nil {
		return err
	}
	if image == nil {
		return nil
	}
	f, err := image.Open("")
	if err != nil {
		return err
	}
	return f.Close()
}

func (d *snapshotInfo) print(w io.Writer, verified bool) error {
	lines := []string{
		"snapshot   " + d.Path,
		"id         " + d.ID,
		fmt.Sprintf("made       %s by vitrine %s (format %d)", d.Created.Local().Format(time.DateTime), d.Maker, d.Format),
		fmt.Sprintf("machine    %s, --accel %s, %d CPUs, %s of memory, virtio-%s", orNone(d.Machine), d.Accel, d.CPUs, formatSize(d.Memory), d.Transport),
		fmt.Sprintf("memory     %s stored, %s on the disk", formatSize(d.Stored), formatSize(d.OnDisk)),
		"devices    " + orNone(strings.Join(d.Devices, " ")),
	}
	for _, b := range d.Base {
		lines = append(lines, "builds on  "+b)
	}
	if d.Image != "" {
		lines = append(lines, "image      "+d.Image)
	}
	if d.Command != nil {
		lines = append(lines, "command    "+strings.Join(d.Command, " "))
	}
	if verified {
		lines = append(lines, "checksums  right")
	}
	if d.Problem != "" {
		lines = append(lines, "here       cannot be restored: "+d.Problem)
	} else {
		lines = append(lines, "here       can be restored: vitrine restore "+shellWord(filepath.Clean(d.Path)))
	}
	return writeLines(w, lines)
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}
