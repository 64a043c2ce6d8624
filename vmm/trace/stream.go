package trace

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Meta is what a reader of a stream must know of the machine to understand its
// events.
type Meta struct {
	Version   int                        `json:"version"`
	Machine   string                     `json:"machine,omitempty"`
	Accel     string                     `json:"accel"`
	CPUs      int                        `json:"cpus"`
	Memory    uint64                     `json:"memory"`
	Transport string                     `json:"transport"`
	Kernel    string                     `json:"kernel,omitempty"` // its file, on the host where the machine runs
	Began     time.Time                  `json:"began"`
	Sources   []string                   `json:"sources"`
	Devices   []Device                   `json:"devices"`
	Functions []Function                 `json:"functions,omitempty"`
	States    map[string]json.RawMessage `json:"states"`           // a recording's: of each device when it began
	Virtio    map[string]VirtioSpec      `json:"virtio,omitempty"` // a recording's
}

// MetaVersion is the version of the format that this package writes and reads.
const MetaVersion = 1

// Function is a function on the PCI bus, with its capabilities.
type Function struct {
	Device       int          `json:"device"`
	Name         string       `json:"name"`
	Capabilities []Capability `json:"capabilities,omitempty"`
}

// Capability is one of a function's: where it stands, what it is, and of a
// vendor-specific one the type.
type Capability struct {
	At   uint8 `json:"at"`
	ID   uint8 `json:"id"`
	Type uint8 `json:"type,omitempty"`
}

// VirtioSpec is what a virtio device was, for a replay.
type VirtioSpec struct {
	ID       uint32   `json:"id"`
	Features uint64   `json:"features"`
	QueueMax []uint16 `json:"queueMax"`
	Config   []byte   `json:"config,omitempty"`
}

// End is what stands at the end of a stream.
type End struct {
	At     time.Duration              `json:"at"` // since Began
	Lost   uint64                     `json:"lost"`
	Reason string                     `json:"reason,omitempty"` // why the machine ended, if it did
	Phases []Phase                    `json:"phases,omitempty"`
	Usage  []Usage                    `json:"usage,omitempty"`
	States map[string]json.RawMessage `json:"states,omitempty"` // a recording's
	Run    json.RawMessage            `json:"run,omitempty"`    // what made the machine of a deterministic recording, for the program that made it
}

// Phase is a step of the machine's life and when it was reached, since Began.
type Phase struct {
	Name string        `json:"name"`
	At   time.Duration `json:"at"`
}

// Usage is where a vCPU thread's time went, as the host's kernel accounts it.
type Usage struct {
	CPU    int           `json:"cpu"`
	User   time.Duration `json:"user"`   // guest code, and the VMM's own
	Kernel time.Duration `json:"kernel"` // KVM
	Guest  time.Duration `json:"guest"`  // of User, guest code, where the host tells
}

// A stream is the magic number, and then records: a byte that says what it is,
// the length of the rest, 32 bits little-endian, the rest. The first has a
// Meta, the last an End; between them are batches of events.
const (
	streamMagic = "VTRACE01"
	recordMeta  = 'M'
	recordBatch = 'E' // events, 56 bytes each: seven 64-bit words
	recordEnd   = 'Z'

	eventSize   = 56
	maxRecord   = 64 << 20
	batchEvents = 1024
)

// Writer writes a stream.
type Writer struct {
	w   *bufio.Writer
	buf []byte
}

// NewWriter writes the beginning of a stream.
func NewWriter(w io.Writer, m *Meta) (*Writer, error) {
	s := &Writer{w: bufio.NewWriterSize(w, 64<<10)}
	m.Version = MetaVersion
	if _, err := s.w.WriteString(streamMagic); err != nil {
		return nil, err
	}
	if err := s.json(recordMeta, m); err != nil {
		return nil, err
	}
	return s, s.w.Flush()
}

func (s *Writer) json(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.record(kind, b)
}

func (s *Writer) record(kind byte, b []byte) error {
	var head [5]byte
	head[0] = kind
	binary.LittleEndian.PutUint32(head[1:], uint32(len(b)))
	_, err := s.w.Write(head[:])
	if err == nil {
		_, err = s.w.Write(b)
	}
	return err
}

// Events writes events, in the order in which a reader is to have them.
func (s *Writer) Events(events []Event) error {
	for len(events) > 0 {
		n := min(len(events), batchEvents)
		s.buf = s.buf[:0]
		for i := range events[:n] {
			for _, w := range events[i].words() {
				s.buf = binary.LittleEndian.AppendUint64(s.buf, w)
			}
		}
		if err := s.record(recordBatch, s.buf); err != nil {
			return err
		}
		events = events[n:]
	}
	return s.w.Flush()
}

// End ends the stream.
func (s *Writer) End(e *End) error {
	if err := s.json(recordEnd, e); err != nil {
		return err
	}
	return s.w.Flush()
}

// StreamReader reads a stream.
type StreamReader struct {
	Meta Meta
	r    *bufio.Reader
	buf  []byte
	left []byte
	end  *End
}

// ErrNotStream is wrapped by the error for what is no stream.
var ErrNotStream = errors.New("not a recording of vitrine's")

// NewStreamReader reads the beginning of a stream.
func NewStreamReader(r io.Reader) (*StreamReader, error) {
	s := &StreamReader{r: bufio.NewReaderSize(r, 64<<10)}
	var magic [len(streamMagic)]byte
	if _, err := io.ReadFull(s.r, magic[:]); err != nil || string(magic[:]) != streamMagic {
		return nil, ErrNotStream
	}
	kind, b, err := s.record()
	if err != nil {
		return nil, err
	}
	if kind != recordMeta {
		return nil, fmt.Errorf("%w: it does not begin with a description", ErrNotStream)
	}
	if err := json.Unmarshal(b, &s.Meta); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotStream, err)
	}
	if s.Meta.Version != MetaVersion {
		return nil, fmt.Errorf("recording of version %d, and this is version %d: use the version of vitrine that made it", s.Meta.Version, MetaVersion)
	}
	return s, nil
}

// record reads one; its bytes are valid until the next.
func (s *StreamReader) record() (kind byte, b []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.LittleEndian.Uint32(head[1:]))
	if n > maxRecord {
		return 0, nil, fmt.Errorf("recording: a record of %d bytes: it is damaged", n)
	}
	// Grows with what is there, not with what a length claims.
	s.buf = s.buf[:0]
	for len(s.buf) < n {
		at := len(s.buf)
		s.buf = append(s.buf, make([]byte, min(n-at, 1<<20))...)
		if _, err := io.ReadFull(s.r, s.buf[at:]); err != nil {
			return 0, nil, io.ErrUnexpectedEOF
		}
	}
	return head[0], s.buf, nil
}

// Next returns the next event; the error is io.EOF at the stream's end, or
// io.ErrUnexpectedEOF where the stream was cut off.
func (s *StreamReader) Next() (Event, error) {
	for len(s.left) < eventSize {
		if s.end != nil {
			return Event{}, io.EOF
		}
		kind, b, err := s.record()
		switch {
		case err == io.EOF:
			return Event{}, io.ErrUnexpectedEOF
		case err != nil:
			return Event{}, err
		case kind == recordBatch && len(b)%eventSize == 0:
			s.left = b
		case kind == recordEnd:
			s.end = new(End)
			if err := json.Unmarshal(b, s.end); err != nil {
				return Event{}, fmt.Errorf("recording: its end: %w", err)
			}
		default:
			return Event{}, fmt.Errorf("recording: a record of type %#x and %d bytes: it is damaged", kind, len(b))
		}
	}
	var w [7]uint64
	for i := range w {
		w[i] = binary.LittleEndian.Uint64(s.left[8*i:])
	}
	s.left = s.left[eventSize:]
	return unpack(&w), nil
}

// Ready says whether Next has an event without reading on.
func (s *StreamReader) Ready() bool { return len(s.left) >= eventSize }

// End is what stands at the stream's end; nil before Next has returned io.EOF.
func (s *StreamReader) End() *End { return s.end }
