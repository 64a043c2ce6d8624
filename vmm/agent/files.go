package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// File describes a file in the guest.
type File struct {
	Name    string      // as asked for, or a directory entry's
	Mode    fs.FileMode // type, permissions, setuid, setgid, sticky
	UID     uint32
	GID     uint32
	Size    int64
	ModTime time.Time
	Target  string // of a symbolic link
}

// Bits of st_mode.
const (
	sIFMT  = 0o170000
	sIFDIR = 0o040000
	sIFCHR = 0o020000
	sIFBLK = 0o060000
	sIFREG = 0o100000
	sIFIFO = 0o010000
	sIFLNK = 0o120000
	sISUID = 0o4000
	sISGID = 0o2000
	sISVTX = 0o1000
)

// fromMode translates st_mode.
func fromMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & sIFMT {
	case sIFDIR:
		mode |= fs.ModeDir
	case sIFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case sIFBLK:
		mode |= fs.ModeDevice
	case sIFIFO:
		mode |= fs.ModeNamedPipe
	case sIFLNK:
		mode |= fs.ModeSymlink
	case sIFREG:
	default:
		mode |= fs.ModeIrregular
	}
	for bit, flag := range map[uint32]fs.FileMode{sISUID: fs.ModeSetuid, sISGID: fs.ModeSetgid, sISVTX: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= flag
		}
	}
	return mode
}

// toMode translates permissions back.
func toMode(mode fs.FileMode) uint32 {
	m := uint32(mode.Perm())
	for bit, flag := range map[uint32]fs.FileMode{sISUID: fs.ModeSetuid, sISGID: fs.ModeSetgid, sISVTX: fs.ModeSticky} {
		if mode&flag != 0 {
			m |= bit
		}
	}
	return m
}

func decodeFile(d *decoder) (File, error) {
	f := File{Mode: fromMode(d.u32()), UID: d.u32(), GID: d.u32(), Size: int64(d.u64()), ModTime: time.Unix(0, int64(d.u64()))}
	f.Name, f.Target = d.str(), d.str()
	if f.Size < 0 {
		d.bad = true
	}
	return f, d.err()
}

// Stat describes a file; a symbolic link itself unless follow.
func (c *Client) Stat(ctx context.Context, path string, follow bool) (File, error) {
	e := &encoder{}
	if follow {
		e.u8(1)
	} else {
		e.u8(0)
	}
	e.str(path)
	d, err := c.call(ctx, reqStat, e)
	if err != nil {
		return File{}, err
	}
	return decodeFile(d)
}

// List calls visit for every entry of a directory, in no order, until it
// returns an error. Names come from the guest: they may be anything but empty.
func (c *Client) List(ctx context.Context, path string, visit func(File) error) error {
	e := &encoder{}
	e.str(path)
	k, err := c.start(ctx, reqList, e)
	if err != nil {
		return err
	}
	defer k.close()
	for {
		t, d, err := k.next()
		if err != nil || t == outEnd {
			return err
		}
		if t != outEntry {
			return unexpected(t)
		}
		f, err := decodeFile(d)
		if err != nil {
			return err
		}
		if err := visit(f); err != nil {
			return err
		}
	}
}

// Get writes a regular file's content to w, and says what it was. It ends at
// the file's end as the guest finds it, so files that grow, or that /proc makes
// up, come as they are.
func (c *Client) Get(ctx context.Context, path string, w io.Writer) (File, error) {
	e := &encoder{}
	e.str(path)
	k, err := c.start(ctx, reqGet, e)
	if err != nil {
		return File{}, err
	}
	defer k.close()
	t, d, err := k.next()
	if err != nil {
		return File{}, err
	}
	if t != outEntry {
		return File{}, unexpected(t)
	}
	f, err := decodeFile(d)
	if err != nil {
		return File{}, err
	}
	for {
		t, d, err := k.next()
		switch {
		case err != nil || t == outEnd:
			return f, err
		case t != outData:
			return f, unexpected(t)
		}
		if _, err := w.Write(d.b); err != nil {
			return f, fmt.Errorf("write what came from %s: %w", path, err)
		}
	}
}

// PutOptions say what a file gets in the guest.
type PutOptions struct {
	Mode     fs.FileMode // permissions; directories too
	Owner    bool        // set UID and GID; otherwise root
	UID, GID uint32
	ModTime  time.Time // zero: now
	Parents  bool      // make missing directories above
}

const (
	putFile    = 0
	putDir     = 1
	putSymlink = 2

	putSetOwner    = 1
	putMakeParents = 2
	putSetTime     = 4
)

func (o *PutOptions) encode(kind uint8, path, target string) *encoder {
	e := &encoder{}
	var flags uint32
	var mtime uint64
	if o.Owner {
		flags |= putSetOwner
	}
	if o.Parents {
		flags |= putMakeParents
	}
	if !o.ModTime.IsZero() {
		flags |= putSetTime
		mtime = uint64(o.ModTime.UnixNano())
	}
	e.u8(kind)
	e.u32(flags)
	e.u32(toMode(o.Mode))
	e.u32(o.UID)
	e.u32(o.GID)
	e.u64(mtime)
	e.str(path)
	e.str(target)
	return e
}

// Put makes a regular file of what r holds. The file appears when all of it is
// there, in place of what had the name; a transfer that breaks leaves that.
func (c *Client) Put(ctx context.Context, path string, r io.Reader, o PutOptions) error {
	k, err := c.start(ctx, reqPut, o.encode(putFile, path, ""))
	if err != nil {
		return err
	}
	defer k.close()
	// The guest answers early only to refuse; then it no longer reads.
	answered := make(chan struct{})
	var answer error
	go func() {
		defer close(answered)
		t, _, err := k.next()
		if err == nil && t != outOK {
			err = unexpected(t)
		}
		answer = err
	}()
	sent := k.sendContent(r, answered)
	if errors.Is(sent, errSource) {
		k.close() // no answer will come
	}
	<-answered
	var refused *Error
	if sent == nil || errors.As(answer, &refused) {
		return answer
	}
	return sent
}

// errSource is wrapped by errors of the reader that Put copies from.
var errSource = errors.New("read what to copy")

// sendContent sends r as data frames, and an end frame. It stops without an
// error once the answer is there.
func (k *conn) sendContent(r io.Reader, answered <-chan struct{}) error {
	buf := make([]byte, maxPayload)
	for {
		n, err := io.ReadFull(r, buf)
		select {
		case <-answered:
			return nil
		default:
		}
		if n > 0 {
			if err := k.send(inData, buf[:n]); err != nil {
				return err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return k.send(inEnd, nil)
		default:
			return fmt.Errorf("%w: %w", errSource, err)
		}
	}
}

// Mkdir makes a directory, or changes the mode of the one that is there.
func (c *Client) Mkdir(ctx context.Context, path string, o PutOptions) error {
	_, err := c.call(ctx, reqPut, o.encode(putDir, path, ""))
	return err
}

// Symlink makes a symbolic link, in place of what is no directory.
func (c *Client) Symlink(ctx context.Context, target, path string, o PutOptions) error {
	_, err := c.call(ctx, reqPut, o.encode(putSymlink, path, target))
	return err
}
