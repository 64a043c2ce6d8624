package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/docs/labs"
)

// Where the device of lab 5 is, and the text that it is to sum.
const (
	deviceAt   = 0xd0100000
	deviceSize = 16
	textAt     = 0x10000
)

// runDevice shows what a guest does with a device: the demonstration has a guest
// of its own.
func runDevice(ctx context.Context, source []byte, o Options, w io.Writer) error {
	guest := "driver.bin"
	if demo, err := labs.Files.ReadFile(deviceFolder + "/demo.go"); err == nil && bytes.Equal(demo, source) {
		guest = "demo.bin"
	}
	return withDevice(ctx, source, o, func(d *device) error {
		r, err := tryDevice(ctx, d, guest, "a text for the sum", o)
		if err != nil {
			return err
		}
		defer r.Close()
		for _, a := range d.accesses {
			fmt.Fprintf(w, "%v: %#x\n", a, a.value())
		}
		fmt.Fprintf(w, "%s%s", d.printed.String(), r.Output)
		if d.err != nil {
			return d.err
		}
		if !r.Halted {
			return errors.New(r.Why)
		}
		return nil
	})
}

func judgeDevice(ctx context.Context, source []byte, o Options) (broken []string, err error) {
	for _, text := range []string{"Vitrine", "a device of my own"} {
		err := withDevice(ctx, source, o, func(d *device) error {
			r, err := tryDevice(ctx, d, "driver.bin", text+"\n", o)
			if err != nil {
				return err
			}
			defer r.Close()
			if s := d.judge(); s != "" {
				broken = append(broken, s)
			} else if !r.Halted {
				broken = append(broken, r.Why)
			}
			return nil
		})
		var build *buildError
		if errors.As(err, &build) {
			return []string{err.Error()}, nil
		}
		if err != nil || len(broken) > 0 {
			return broken, err
		}
	}
	return nil, nil
}

// withDevice builds and starts a device for f.
func withDevice(ctx context.Context, source []byte, o Options, f func(d *device) error) error {
	dir, err := os.MkdirTemp("", "vitrine-lab")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := buildDevice(ctx, dir, source)
	if err != nil {
		return err
	}
	const patience = 3 * time.Second // it also has to start
	d, err := startDevice(ctx, program, max(o.Limit, patience))
	if err != nil {
		return err
	}
	defer d.close()
	return f(d)
}

// tryDevice runs a guest of the lab's with the device.
func tryDevice(ctx context.Context, d *device, guest, text string, o Options) (*Result, error) {
	program, err := labs.Files.ReadFile(deviceFolder + "/" + guest)
	if err != nil {
		return nil, err
	}
	o.Limit = max(o.Limit, 2*d.limit) // the device's failure is noticed before
	return Run(ctx, program, Start{BX: textAt, CX: uint64(len(text)), Flat: true, Place: []Blob{{textAt, []byte(text)}},
		Device: d, DeviceAt: bus.Range{Base: deviceAt, Size: deviceSize, Name: "yours"}}, o)
}

// sums is what lab 5's device is to be.
type sums struct{ sum, count uint32 }

func (s *sums) write(a access) {
	for i := range a.data {
		switch at := a.offset + uint64(i); {
		case at >= 12:
			*s = sums{}
		case at >= 4 && at < 8:
			s.sum, s.count = crc32.Update(s.sum, crc32.IEEETable, a.data[i:i+1]), s.count+1
		}
	}
}

// read is the right answer to a read, which the bus lets through only whole.
func (s *sums) read(a access) access {
	var all [deviceSize]byte
	copy(all[:], "SUM1")
	binary.LittleEndian.PutUint32(all[8:], s.sum)
	binary.LittleEndian.PutUint32(all[12:], s.count)
	return access{offset: a.offset, data: all[a.offset:][:len(a.data)]}
}

// judge compares the device's answers with what they must be, and says the
// first that is wrong.
func (d *device) judge() string {
	var right sums
	writes := 0
	for _, a := range d.accesses {
		if a.lost {
			return d.err.Error()
		}
		if a.write {
			right.write(a)
			writes++
			continue
		}
		want := right.read(a)
		if bytes.Equal(a.data, want.data) {
			continue
		}
		after := ""
		if writes > 0 {
			after = fmt.Sprintf("after %d writes (%d bytes of data), ", writes, right.count)
		}
		return fmt.Sprintf("%sa %v must give %#x, and gave %#x", after, a, want.value(), a.value())
	}
	return ""
}
