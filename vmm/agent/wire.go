package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A frame is a header of two little-endian 32-bit words, type and length, and
// that many bytes. docs/agent.md lists the types.
const (
	headerLen  = 8
	maxPayload = 64 << 10
)

type frameType uint32

const (
	reqPing      frameType = 0x01
	reqExec      frameType = 0x02
	reqPut       frameType = 0x03
	reqGet       frameType = 0x04
	reqList      frameType = 0x05
	reqStat      frameType = 0x06
	reqMount     frameType = 0x07
	reqConfigure frameType = 0x08
	reqShutdown  frameType = 0x09

	inStdin    frameType = 0x20
	inStdinEnd frameType = 0x21
	inSignal   frameType = 0x22
	inResize   frameType = 0x23
	inData     frameType = 0x24
	inEnd      frameType = 0x25

	outOK      frameType = 0x40
	outError   frameType = 0x41
	outStarted frameType = 0x42
	outStdout  frameType = 0x43
	outStderr  frameType = 0x44
	outExit    frameType = 0x45
	outWindow  frameType = 0x46
	outEntry   frameType = 0x47
	outData    frameType = 0x48
	outEnd     frameType = 0x49
)

// errProtocol is wrapped by what goes wrong when the guest does not keep to the
// protocol: it is a guest, and may say anything.
var errProtocol = errors.New("the guest's agent broke the protocol")

// errTooLong is what a request is refused with that no frame can hold.
var errTooLong = fmt.Errorf("longer than the %d bytes that a request to the guest's agent may have", maxPayload)

// encoder builds a payload. An error sticks until bytes is called.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) u8(v uint8)   { e.b = append(e.b, v) }
func (e *encoder) u16(v uint16) { e.b = binary.LittleEndian.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32) { e.b = binary.LittleEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, v) }

// str appends a length and the text, which goes to C and so may have no NUL.
func (e *encoder) str(s string) {
	if strings.IndexByte(s, 0) >= 0 {
		e.err = fmt.Errorf("%q has a NUL byte", s)
	}
	e.raw([]byte(s))
}

func (e *encoder) raw(p []byte) {
	if len(p) > maxPayload-1 {
		e.err = errTooLong
		return
	}
	e.u16(uint16(len(p)))
	e.b = append(e.b, p...)
}

func (e *encoder) strs(list []string) {
	if len(list) >= 4096 {
		e.err = errors.New("more than 4095 arguments or variables")
		return
	}
	e.u16(uint16(len(list)))
	for _, s := range list {
		e.str(s)
	}
}

func (e *encoder) bytes() ([]byte, error) {
	if e.err == nil && len(e.b) > maxPayload {
		e.err = errTooLong
	}
	return e.b, e.err
}

// decoder reads a payload. Reading past the end gives zeros and sets bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.b, d.bad = nil, true
		return make([]byte, n)
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) u16() uint16 { return binary.LittleEndian.Uint16(d.take(2)) }
func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }

func (d *decoder) str() string {
	n := int(d.u16())
	if n > len(d.b) {
		d.b, d.bad = nil, true
		return ""
	}
	return string(d.take(n))
}

// err is nil if everything was there.
func (d *decoder) err() error {
	if d.bad {
		return fmt.Errorf("%w: a frame is too short", errProtocol)
	}
	return nil
}

// readFrame reads a frame into buf, which must hold maxPayload bytes; the
// payload is valid until the next call.
func readFrame(r io.Reader, buf []byte) (frameType, []byte, error) {
	if _, err := io.ReadFull(r, buf[:headerLen]); err != nil {
		return 0, nil, err
	}
	t := frameType(binary.LittleEndian.Uint32(buf))
	n := binary.LittleEndian.Uint32(buf[4:])
	if n > maxPayload {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes", errProtocol, n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return t, buf[:n], nil
}

// appendFrame appends a frame to dst.
func appendFrame(dst []byte, t frameType, payload []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(t))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...)
}
