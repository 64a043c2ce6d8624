package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/balloon"
	"github.com/vitrine-vmm/vitrine/devices/virtio/ninep"
	"github.com/vitrine-vmm/vitrine/devices/virtio/vsock"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/share"
	"github.com/vitrine-vmm/vitrine/vmm/vsockhost"
)

// openManaged opens what joins the machine to the host beside disks and
// networks. The agent's vsock device is there already, where there is one.
func (l *launch) openManaged(o *runOptions) error {
	if err := l.openVsock(o); err != nil {
		return err
	}
	if err := l.openShares(o); err != nil {
		return err
	}
	if o.balloon {
		l.memory = new(lateMemory)
		l.devices = append(l.devices, balloon.New(l.memory, balloon.Options{DeflateOnOOM: true}))
	}
	for _, p := range o.pmems {
		f, err := p.open()
		if err != nil {
			return err
		}
		l.onClose(f.Close)
		l.pmems = append(l.pmems, f)
		l.cfg.Persistent = append(l.cfg.Persistent, f)
	}
	l.cfg.HugePages = vmm.HugePages(o.hugepages)
	return nil
}

func (p *pmemOption) open() (*disk.PMEM, error) {
	if p.over != nil {
		return disk.OpenPMEMOver(p.path, p.over)
	}
	return disk.OpenPMEM(p.path, p.readOnly)
}

func (l *launch) openVsock(o *runOptions) error {
	if o.vsock == "" {
		return nil
	}
	dev := deviceOf[*vsock.Device](l)
	if dev == nil {
		var err error
		if dev, err = vsock.New(vsock.Config{CID: guestCID, Name: "vsock"}); err != nil {
			return err
		}
		l.devices = append(l.devices, dev)
	}
	b, err := vsockhost.Open(dev, o.vsock, l.log)
	if err != nil {
		return fmt.Errorf("--vsock: %w", err)
	}
	l.onClose(b.Close)
	return nil
}

func (l *launch) openShares(o *runOptions) error {
	for _, s := range o.shares {
		files, err := share.Open(s.dir, s.readOnly)
		if err != nil {
			return fmt.Errorf("--share %s: %w", s.dir, err)
		}
		l.onClose(files.Close)
		dev, err := ninep.New(ninep.Options{Name: "share-" + s.tag, Tag: s.tag, Attach: files})
		if err != nil {
			return fmt.Errorf("--share %s: %w", s.dir, err)
		}
		l.onClose(func() error { dev.Close(); return nil })
		l.devices = append(l.devices, virtio.Device(dev))
	}
	return nil
}

// managedWords are what the embedded guest is told of it: where shares are to
// be mounted, and that there is nobody but those who attach.
func (o *runOptions) managedWords() []string {
	var words, mounts []string
	for _, s := range o.shares {
		m := "9p:" + s.tag + ":/mnt/" + s.tag
		if s.readOnly {
			m += ":ro"
		}
		mounts = append(mounts, m)
	}
	if mounts != nil {
		words = append(words, guestimages.ParamMount+strings.Join(mounts, ","))
	}
	if o.detach && o.command == nil && o.console == "" {
		words = append(words, guestimages.ParamConsole+"ttyS0")
	}
	return words
}

// lateMemory is the memory of a machine that is made after the device that
// gives it back.
type lateMemory struct{ guest atomic.Pointer[memory.Guest] }

func (m *lateMemory) Discard(a memory.Addr, n uint64) error {
	g := m.guest.Load()
	if g == nil {
		return errors.New("the machine is not there yet")
	}
	return g.Discard(a, n)
}

func init() { launchExtras = append(launchExtras, balloonExtra) }

// balloonRequest is the body of POST /v1/action/balloon, and balloonState its
// answer, as that of GET /v1/inspect/balloon.
type balloonRequest struct {
	Target uint64 `json:"target"`
}

type balloonState struct {
	Target    uint64         `json:"target"`
	Actual    uint64         `json:"actual"`
	Discarded uint64         `json:"discarded"`
	Guest     *balloon.Stats `json:"guest,omitempty"`
}

func balloonExtra(m *vmm.Machine, l *launch) control.Extra {
	dev := deviceOf[*balloon.Device](l)
	if dev == nil {
		return control.Extra{}
	}
	l.memory.guest.Store(m.Memory())
	state := func(w http.ResponseWriter, r *http.Request) {
		s := balloonState{Target: dev.Target(), Actual: dev.Actual(), Discarded: dev.Discarded()}
		if g, err := dev.Stats(r.Context()); err == nil {
			s.Guest = &g
		}
		_ = json.NewEncoder(w).Encode(s)
	}
	set := func(w http.ResponseWriter, r *http.Request) {
		var req balloonRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&req); err != nil {
			http.Error(w, "want {\"target\": BYTES}", http.StatusBadRequest)
			return
		}
		if req.Target > m.Memory().Size() {
			http.Error(w, "the guest has no more than "+formatSize(m.Memory().Size()), http.StatusConflict)
			return
		}
		if err := dev.SetTarget(req.Target); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		state(w, r)
	}
	return control.Extra{
		Inspect: map[string]http.Handler{"balloon": http.HandlerFunc(state)},
		Action:  map[string]http.Handler{"balloon": http.HandlerFunc(set)},
	}
}

func balloonCommand() *cli.Command {
	return &cli.Command{
		Name: "balloon", ArgsUsage: "NAME [SIZE]", OnUsageError: onUsageError,
		Usage:        "take memory from a guest (SIZE of it; 0 gives all back), or show how it is used",
		Flags:        []cli.Flag{stateFlag()},
		BashComplete: completeNames,
		Action: func(c *cli.Context) error {
			if n := c.NArg(); n != 1 && n != 2 {
				return usagef("vitrine balloon NAME SIZE", "balloon: want a machine and a size")
			}
			dir, err := openState(c)
			if err != nil {
				return err
			}
			client, err := dir.Client(c.Args().First())
			if err != nil {
				return err
			}
			r, err := dir.Find(c.Args().First())
			if err != nil {
				return err
			}
			if !configured(&r, "balloon") {
				return fmt.Errorf("machine %q has no balloon: run it with --balloon", r.Name)
			}
			var s balloonState
			if c.NArg() == 1 {
				err = client.Inspect(c.Context, "balloon", nil, &s)
			} else {
				var size uint64
				if size, err = parseSize(c.Args().Get(1)); err != nil {
					return usagef("such as 64M", "%w", err)
				}
				err = client.Action(c.Context, "balloon", balloonRequest{size}, &s)
			}
			if err != nil {
				return err
			}
			return printBalloon(c, &s)
		},
	}
}

// configured says whether a field of a machine's configuration is there.
func configured(r *control.Record, field string) bool {
	var fields map[string]any
	return json.Unmarshal(r.Config, &fields) == nil && fields[field] != nil
}

func printBalloon(c *cli.Context, s *balloonState) error {
	lines := []string{
		"asked for   " + formatSize(s.Target),
		"taken       " + formatSize(s.Actual),
		"given back  " + formatSize(s.Discarded) + " in all, what was free in the guest included",
	}
	if s.Guest != nil && s.Guest.Total != nil && s.Guest.Available != nil {
		lines = append(lines, fmt.Sprintf("guest       %s, of which %s are available", formatSize(*s.Guest.Total), formatSize(*s.Guest.Available)))
	}
	return writeLines(c.App.Writer, lines)
}
