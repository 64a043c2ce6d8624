package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
)

// diskKeys are the settings of --disk.
var diskKeys = []string{"ro", "direct", "id=", "format=", "iops=", "bps="}

// maxDiskID is the longest serial number of a virtio disk (virtio 1.2 §5.2.6).
const maxDiskID = 20

// parseDisk reads FILE[,ro][,direct][,id=NAME][,format=raw|qcow2][,iops=N][,bps=SIZE].
func parseDisk(s string) (disk.Options, error) {
	o, err := parseOptionText("--disk", s, diskKeys, false)
	if err != nil {
		return disk.Options{}, err
	}
	d := disk.Options{Path: o.first, ReadOnly: o.has("ro"), Direct: o.has("direct"), ID: o.rest["id"], Format: disk.Format(o.rest["format"])}
	switch {
	case d.Path == "":
		return d, o.mistake("no file", "put it first: --disk FILE,ro")
	case len(d.ID) > maxDiskID:
		return d, o.mistake("the id is too long", fmt.Sprintf("a disk's serial number has at most %d bytes", maxDiskID))
	case strings.ContainsAny(d.ID, "/ \t\n"):
		return d, o.mistake("the id has a slash or a space", "use letters, digits, - and _")
	case d.Format != "" && d.Format != disk.Raw && d.Format != disk.QCOW2:
		return d, o.mistake("unknown format "+quote(string(d.Format)), "use raw or qcow2")
	}
	if d.IOPS, err = o.rate("iops"); err != nil {
		return d, err
	}
	d.BPS, err = o.rate("bps")
	return d, err
}

// rate reads a limit: a number above 0, with K, M, G or T if need be.
func (o *optionText) rate(key string) (int64, error) {
	text, ok := o.rest[key]
	if !ok {
		return 0, nil
	}
	v, err := parseSize(text)
	if err != nil || v == 0 || v > 1<<62 {
		return 0, o.mistake(quote(key+"="+text)+" is no limit", "use a number above 0, such as 500 or 20M")
	}
	return int64(v), nil
}

// rootParameter is what the kernel's command line says of the root file system:
// an id of a disk, or a device as the guest names it.
func rootParameter(root string, disks []disk.Options) (string, error) {
	id, byID := strings.CutPrefix(root, "id=")
	if !byID {
		if !strings.HasPrefix(root, "/dev/") && !strings.Contains(root, "=") {
			return "", usagef("use id=NAME of a --disk, or the guest's name for the device, such as /dev/vda1", "--root %s: neither", quote(root))
		}
		return "root=" + root + " rw", nil
	}
	for i, d := range disks {
		if d.ID == id {
			mode := " rw"
			if d.ReadOnly {
				mode = " ro"
			}
			return "root=/dev/" + diskName(i) + mode, nil
		}
	}
	return "", usagef("give one: --disk FILE,id="+id, "--root %s: no disk has this id", quote(root))
}

// diskName is Linux's name of the virtio disk number i: vda…vdz, vdaa… (its
// virtblk_name_format).
func diskName(i int) string {
	name := ""
	for i++; i > 0; i = (i - 1) / 26 {
		name = string(rune('a'+(i-1)%26)) + name
	}
	return "vd" + name
}

// openDisks opens the disks and makes their devices. What it opened is closed
// by close, also after an error.
func (l *launch) openDisks(disks []disk.Options, cpus int, deterministic bool) error {
	for i, o := range disks {
		name := diskName(i)
		if deterministic {
			o.Engine = disk.EngineInline
		}
		b, err := disk.Open(o)
		if err != nil {
			return diskError(o, err)
		}
		l.onClose(b.Close)
		l.backends = append(l.backends, b)
		d, err := blk.New(b, blk.Options{Name: name, Queues: cpus})
		if err != nil {
			return fmt.Errorf("disk %s: %w", o.Path, err)
		}
		l.devices = append(l.devices, virtio.Device(d))
	}
	return nil
}

// diskError adds the next step to an error of disk.Open.
func diskError(o disk.Options, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("disk %s: there is no such file: make one with: truncate -s 1G %s", o.Path, shellWord(o.Path))
	case errors.Is(err, os.ErrPermission) && !o.ReadOnly:
		return fmt.Errorf("disk %s: you may not write to it: change its permissions, or add ,ro: %w", o.Path, err)
	case errors.Is(err, disk.ErrInUse):
		return fmt.Errorf("disk %s: %w: stop the other machine, or give both ,ro", o.Path, disk.ErrInUse)
	}
	return fmt.Errorf("disk %s: %w", o.Path, err)
}

// shellWord is s as a shell takes it.
func shellWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r == '/' || r == '.' || r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
