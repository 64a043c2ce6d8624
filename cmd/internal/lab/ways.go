package lab

import (
	"context"
	"io"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// way is how a lab goes that does more than run one program in one machine.
type way struct {
	source string // what the learner writes ends so; "": .s
	made   string // and what is run; "": .bin
	run    Runner
	judge  func(ctx context.Context, program []byte, o Options) ([]string, error)
}

// Runner runs a demonstration, or the learner's program, and says on w what
// came of it.
type Runner func(ctx context.Context, program []byte, o Options, w io.Writer) error

// ways are those of the labs that have one, by number.
var ways = map[int]way{
	8:  {run: runBoot, judge: judgeBoot},
	9:  {run: runExits},
	10: {source: ".txt", made: ".txt", run: runCompare, judge: judgeCompare},
	12: {run: runFork, judge: judgeFork},
	5:  {".go", ".go", runDevice, judgeDevice},
}

// later are the labs that look back at whole machines.
func later() []Lab {
	return []Lab{
		{9, "09-exits", "what exits cost: ports, registers, doorbells, batches", consoleStart(64, vmm.NotifyIOEventFD), exitCases, checkExits},
		{10, "10-containers", "why containers start faster, and when they don't", Start{}, nil, nil},
		{11, "11-wreck", "triple fault: read the wreck", Start{}, wreckCases, checkWreck},
		{12, "12-fork", "snapshot and fork", Start{Input: "D"}, nil, nil},
	}
}

// Source is how the name of the file ends that the learner writes.
func (l Lab) Source() string {
	if s := ways[l.Number].source; s != "" {
		return s
	}
	return ".s"
}

// Made is how the name of the file ends that is run or read.
func (l Lab) Made() string {
	if s := ways[l.Number].made; s != "" {
		return s
	}
	return ".bin"
}

// Runner is what runs the lab's programs; nil: Run does.
func (l Lab) Runner() Runner { return ways[l.Number].run }
