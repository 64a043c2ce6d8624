package boot

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cache is a directory of unpacked kernels. It holds:
//
//	<SHA-256 of the bzImage>.elf     what its payload unpacked to, then a trailer
//	stat-<device>-<inode>            which entry a bzImage with this stat(2) has
//	tmp-…                            an entry being written
//
// Entries are complete from the moment on at which they have their name, and
// never change: running guests have them mapped. An entry is used only after
// its digest was checked, or if stat(2) says of it and of the bzImage what it
// said when that was done. That is the reason for the second kind of file:
// hashing 12 MiB and checking 60 MiB would take longer than the rest of a
// start.
type cache struct {
	dir   string
	notef func(format string, args ...any)
}

// Bounds of a cache, beyond which the entries used longest ago go.
const (
	cacheEntries = 16
	cacheBytes   = 1 << 30
)

// The trailer of an entry; tools that read ELF do not mind what follows it.
//
//	 0  "vitrine1"
//	 8  length of the ELF (8)
//	16  its SHA-256 (32)
const (
	trailerMagic = "vitrine1"
	trailerSize  = 48
)

// settled is how old a bzImage must be for its stat(2) to identify it: a file
// written to twice within the clock's grain can have the same times.
const settled = 2 * time.Second

func (c *cache) entry(key [32]byte) string {
	return filepath.Join(c.dir, hex.EncodeToString(key[:])+".elf")
}

// verified opens the entry for key if it is there and its digest is right, and
// removes it if not.
func (c *cache) verified(key [32]byte) (*os.File, uint64) {
	f, err := os.Open(c.entry(key))
	if err != nil {
		return nil, 0
	}
	size, err := checkEntry(f)
	if err != nil {
		c.notef("cache of unpacked kernels: %s: %v: it is unpacked anew", f.Name(), err)
		f.Close()
		_ = os.Remove(f.Name())
		return nil, 0
	}
	return f, size
}

func checkEntry(f *os.File) (size uint64, err error) {
	size, digest, err := readTrailer(f)
	if err != nil {
		return 0, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, bufio.NewReaderSize(io.NewSectionReader(f, 0, int64(size)), 1<<20)); err != nil {
		return 0, err
	}
	if [32]byte(h.Sum(nil)) != digest {
		return 0, errors.New("damaged: its digest is wrong")
	}
	return size, nil
}

func readTrailer(f *os.File) (size uint64, digest [32]byte, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, digest, err
	}
	if info.Size() < trailerSize {
		return 0, digest, errors.New("damaged: it is cut short")
	}
	size = uint64(info.Size()) - trailerSize
	var t [trailerSize]byte
	if err := readAt(f, t[:], size); err != nil {
		return 0, digest, err
	}
	if string(t[:8]) != trailerMagic || binary.LittleEndian.Uint64(t[8:]) != size {
		return 0, digest, errors.New("damaged: its trailer is wrong")
	}
	return size, [32]byte(t[16:]), nil
}

// add writes a new entry and opens it.
func (c *cache) add(key [32]byte, elf []byte) (*os.File, error) {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	c.prune(cacheEntries-1, cacheBytes-min(int64(len(elf)), cacheBytes))
	tmp, err := os.CreateTemp(c.dir, "tmp-*")
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(elf)
	trailer := binary.LittleEndian.AppendUint64([]byte(trailerMagic), uint64(len(elf)))
	_, err = tmp.Write(elf)
	if err == nil {
		_, err = tmp.Write(append(trailer, digest[:]...))
	}
	// Without Sync a crash could leave the name and the times of an entry
	// whose bytes never reached the disk.
	err = errors.Join(err, tmp.Chmod(0o400), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), c.entry(key))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return nil, err
	}
	return os.Open(c.entry(key))
}

// known opens the entry that was remembered for a kernel file, if both are as
// they were then.
func (c *cache) known(kernel *os.File) (*os.File, uint64) {
	id, ok := identify(kernel)
	if !ok {
		return nil, 0
	}
	record, err := os.ReadFile(c.record(id))
	if err != nil {
		return nil, 0
	}
	// "<key> <kernel's identity> <entry's identity>\n"
	fields := strings.Fields(string(record))
	if len(fields) != 3 || fields[1] != id.String() {
		return nil, 0
	}
	key, err := hex.DecodeString(fields[0])
	if err != nil || len(key) != sha256.Size {
		return nil, 0
	}
	f, err := os.Open(c.entry([32]byte(key)))
	if err != nil {
		return nil, 0
	}
	entry, ok := identify(f)
	size, _, err := readTrailer(f)
	if !ok || err != nil || fields[2] != entry.String() {
		f.Close()
		return nil, 0
	}
	// The record's time is the time of its entry's last use.
	now := time.Now()
	_ = os.Chtimes(c.record(id), now, now)
	return f, size
}

// remember notes that the kernel file has the entry f, just verified or made.
func (c *cache) remember(kernel *os.File, key [32]byte, f *os.File) {
	id, ok := identify(kernel)
	entry, entryOK := identify(f)
	if !ok || !entryOK || time.Since(id.changed()) < settled {
		return
	}
	record := fmt.Sprintf("%x %s %s\n", key, id, entry)
	tmp := c.record(id) + ".tmp"
	err := os.WriteFile(tmp, []byte(record), 0o600)
	if err == nil {
		err = os.Rename(tmp, c.record(id))
	}
	if err != nil {
		c.notef("cache of unpacked kernels: %v", err)
	}
}

func (c *cache) record(id fileID) string {
	return filepath.Join(c.dir, fmt.Sprintf("stat-%x-%x", id.device, id.inode))
}

// fileID is what stat(2) says of a file that would change with its contents.
type fileID struct {
	device, inode uint64
	size          int64
	mtime, ctime  int64 // nanoseconds since 1970
}

func (id fileID) String() string {
	return fmt.Sprintf("%x:%x:%x:%x:%x", id.device, id.inode, id.size, id.mtime, id.ctime)
}

func (id fileID) changed() time.Time { return time.Unix(0, max(id.mtime, id.ctime)) }

// cached is an entry in the eyes of prune.
type cached struct {
	path string
	size int64
	used time.Time
}

// prune removes the entries used longest ago until at most n with at most size
// bytes are left, and what nobody needs any more. Errors only leave files.
func (c *cache) prune(n int, size int64) {
	entries, records := c.list()
	slices.SortFunc(entries, func(a, b cached) int { return cmp.Compare(b.used.UnixNano(), a.used.UnixNano()) })
	kept := map[string]bool{}
	for _, e := range entries {
		if len(kept) >= n || e.size > size {
			n = 0 // all further ones were used even longer ago
			_ = os.Remove(e.path)
			continue
		}
		size -= e.size
		kept[e.path] = true
	}
	for path, entry := range records {
		if !kept[entry] {
			_ = os.Remove(path)
		}
	}
}

// list reads the directory: the entries, and the records with the entry that
// each is for. Leftovers of writers that died are removed.
func (c *cache) list() (entries []cached, records map[string]string) {
	dir, _ := os.ReadDir(c.dir)
	records = map[string]string{}
	used := map[string]time.Time{}
	for _, d := range dir {
		path := filepath.Join(c.dir, d.Name())
		info, err := d.Info()
		if err != nil {
			continue
		}
		switch {
		case strings.HasSuffix(d.Name(), ".elf"):
			entries = append(entries, cached{path, info.Size(), info.ModTime()})
		case strings.HasPrefix(d.Name(), "stat-") && !strings.HasSuffix(d.Name(), ".tmp"):
			b, _ := os.ReadFile(path)
			key, _, _ := strings.Cut(string(b), " ")
			records[path] = filepath.Join(c.dir, key+".elf")
			if t := used[records[path]]; info.ModTime().After(t) {
				used[records[path]] = info.ModTime()
			}
		case time.Since(info.ModTime()) > time.Hour && strings.Contains(d.Name(), "tmp"):
			_ = os.Remove(path)
		}
	}
	for i := range entries {
		if t := used[entries[i].path]; t.After(entries[i].used) {
			entries[i].used = t
		}
	}
	return entries, records
}
