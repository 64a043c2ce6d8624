package blk

import (
	"context"
	"errors"
	"fmt"
)

// SectorSize is the unit of capacities and positions in the protocol, whatever
// the block size of the disk (virtio 1.2 §5.2.4).
const SectorSize = 512

// ErrClosed is the error of a request to a back end that has been closed.
var ErrClosed = errors.New("disk is closed")

// Op is what a Request asks for.
type Op uint8

// Operations.
const (
	OpRead        Op = iota // fill Vec from Offset
	OpWrite                 // write Vec at Offset
	OpFlush                 // make every write that has completed durable
	OpDiscard               // Length bytes at Offset are of no interest any more
	OpWriteZeroes           // Length bytes at Offset read as zero from now on
)

var opNames = [...]string{"read", "write", "flush", "discard", "write zeroes"}

func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

// Request is one operation on a disk. Who submits it owns it again when it is
// done; until then nobody may change it.
type Request struct {
	Op      Op
	Durable bool     // OpWrite, OpWriteZeroes: durable before it is done
	Unmap   bool     // OpWriteZeroes: the space may be given back
	Offset  int64    // bytes, a multiple of SectorSize
	Length  int64    // bytes, a multiple of SectorSize; for data the sum over Vec
	Vec     [][]byte // OpRead, OpWrite: the data, anywhere in memory

	Err error // set when it is done; nil if all of it was done

	owner any // what the submitter's callback finds its own things by
}

// Info describes a disk. It does not change while the disk is open.
type Info struct {
	Size          int64 // bytes, a multiple of SectorSize
	BlockSize     int   // the smallest write that needs no read; 0 means SectorSize
	PhysicalBlock int   // the size that the medium works in, if larger; 0 means BlockSize
	OptimalIO     int   // bytes that are best moved at once; 0 means unknown
	ReadOnly      bool
	Discard       bool   // OpDiscard has an effect
	WriteZeroes   bool   // OpWriteZeroes is cheaper than writing zeroes
	DiscardAlign  int    // bytes; what a discard should be a multiple of; 0 means BlockSize
	ID            string // serial number, up to 20 bytes
}

// Backend is what a disk's data is kept in: a file, an image in some format, a
// piece of memory. All methods may be called from any goroutine.
//
// Several requests may be in flight, and are done in any order. A flush covers
// the writes that were done before it was submitted (virtio 1.2 §5.2.6.2); who
// needs more order waits. A failure of the medium is the request's Err, never
// the end of the back end.
type Backend interface {
	// Info describes the disk.
	Info() Info

	// Open returns a channel for up to depth requests at once. done is
	// called for requests that are done, several at a time where possible,
	// from any goroutine, also from within Submit and Kick; the slice is
	// valid during the call. When ctx is done, requests that a limit holds
	// back go on at once.
	Open(ctx context.Context, depth int, done func([]*Request)) (Channel, error)

	// Close releases what the back end holds. No channel may be open.
	Close() error
}

// Channel carries the requests of one queue to a back end. Its methods are
// called from one goroutine.
type Channel interface {
	// Submit takes a request. It may start at once or at the next Kick.
	Submit(r *Request)

	// Kick starts what Submit took.
	Kick()

	// Close waits until every request is done, and ends the channel.
	Close() error
}

// Prompt is a Channel that can tell whether a request needs to wait.
type Prompt interface {
	Channel
	// Try does r where it is called if that takes no waiting for the medium
	// (a read of what the host has in memory), and says whether it did: r.Err
	// is set then, and nobody is told of it. Otherwise r is as it was, but
	// what Vec refers to may have changed.
	Try(r *Request) (done bool)
}

// Owner returns what SetOwner left with the request.
func (r *Request) Owner() any { return r.owner }

// SetOwner leaves something with the request for the submitter's own use.
func (r *Request) SetOwner(o any) { r.owner = o }
