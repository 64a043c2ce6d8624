package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const toilBlock = 4096

// toil DISK ADDRESS ROUNDS COUNT OUT: in each round registers keep what is in
// them, a block with a checksum goes to DISK, and comes back from the echo at
// ADDRESS; then the file COUNT has the round's number. After the last one all
// blocks are read back, and OUT says what went wrong. A connection that breaks
// is made again: that of a restored guest does. It works in the background, in a
// session of its own: what the agent has started ends in a restored guest.
func toil(args []string) error {
	const inBackground = "TOILS"
	if os.Getenv(inBackground) == "" {
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Env = append(os.Environ(), inBackground+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	}
	if err := toils(args); err != nil {
		return os.WriteFile(args[4], []byte(err.Error()), 0o644)
	}
	return nil
}

func toils(args []string) error {
	rounds, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	disk, err := os.OpenFile(args[0], os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	count, err := os.Create(args[3])
	if err != nil {
		return err
	}
	defer count.Close()
	hasAVX, err := cpuHas("avx")
	if err != nil {
		return err
	}
	e := echo{address: args[1]}
	corrupted, wrong, lost := 0, 0, 0
	for n := range rounds {
		if hasAVX {
			seed := uint64(n) * 0x0101010101010101
			pattern := [4]uint64{seed, seed + 1, seed + 2, seed + 3}
			var found [8][4]uint64
			hold(&pattern, 20_000_000, &found)
			for _, reg := range found {
				if reg != pattern {
					corrupted++
				}
			}
		}
		block := toiled(n)
		if _, err := disk.WriteAt(block, int64(n)*toilBlock); err != nil {
			return err
		}
		back, err := e.send(block[:256])
		if err != nil {
			return err
		}
		if !bytes.Equal(back, block[:256]) {
			wrong++
		}
		if _, err := count.WriteAt(fmt.Appendf(nil, "%08d\n", n), 0); err != nil {
			return err
		}
	}
	block := make([]byte, toilBlock)
	for n := range rounds {
		if _, err := disk.ReadAt(block, int64(n)*toilBlock); err != nil || !bytes.Equal(block, toiled(n)) {
			lost++
		}
	}
	said := fmt.Sprintf("rounds %d avx %v corrupted %d wrong %d lost %d connections %d\n", rounds, hasAVX, corrupted, wrong, lost, e.dials)
	return os.WriteFile(args[4], []byte(said), 0o644)
}

// toiled is block n of the disk: its number, and what follows from that.
func toiled(n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(n))
	for len(b) < toilBlock {
		sum := sha256.Sum256(b[max(0, len(b)-sha256.Size):])
		b = append(b, sum[:]...)
	}
	return b[:toilBlock]
}

// echo is a TCP connection to who sends back what comes.
type echo struct {
	address string
	conn    net.Conn
	dials   int
}

func (e *echo) send(data []byte) ([]byte, error) {
	var err error
	for range 20 {
		if e.conn == nil {
			e.dials++
			if e.conn, err = net.DialTimeout("tcp", e.address, 20*time.Second); err != nil {
				time.Sleep(500 * time.Millisecond) // the network of a restored guest is set up just now
				continue
			}
		}
		back := make([]byte, len(data))
		_ = e.conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err = e.conn.Write(data); err == nil {
			if _, err = io.ReadFull(e.conn, back); err == nil {
				return back, nil
			}
		}
		e.conn.Close()
		e.conn = nil
	}
	return nil, err
}

// cpuHas says whether the kernel lets programs use a feature of the processor.
func cpuHas(feature string) (bool, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(info)) {
		if strings.HasPrefix(line, "flags") {
			return strings.Contains(line+" ", " "+feature+" "), nil
		}
	}
	return false, nil
}
