package completion

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// interpreter executes what this package has no code for and hosts' emulators
// lack as well, above all x87 and SSE arithmetic: on a software CPU, one
// instruction at a time. That costs tens of microseconds and some memory, so
// it is made when first needed. AVX is beyond it.
type interpreter struct {
	vm      *softcpu.VM
	cpu     *softcpu.VCPU
	area    []byte
	unknown bool // the instruction does not exist there either
}

func newInterpreter(mem *memory.Guest) (*interpreter, error) {
	i := new(interpreter)
	var err error
	i.vm, err = softcpu.New(softcpu.Options{Unknown: func(int, uint64, []byte) { i.unknown = true }})
	if err != nil {
		return nil, err
	}
	if err := i.vm.MapMemory(mem); err != nil {
		return nil, err
	}
	// The memory's hook is for software CPUs that keep decoded code; this
	// one decodes anew each time.
	mem.OnWrite(nil)
	cpuid, err := i.vm.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	if i.cpu, err = i.vm.CreateVCPU(0, cpuid); err != nil {
		return nil, err
	}
	// While somebody watches instructions, a CPU forgets its code whenever
	// it is asked to step.
	i.cpu.OnInstruction(func(uint64, []byte) {})
	i.area = make([]byte, i.vm.XSaveSize())
	return i, nil
}

// interpret executes the instruction at RIP on the software CPU.
func (c *Completer) interpret() (Result, error) {
	in := &c.Engine.in
	if in.vex || in.op == 0x62 && in.table == mapOne {
		return Result{}, ErrUnknown
	}
	if c.soft == nil {
		soft, err := newInterpreter(c.Engine.mem)
		if err != nil {
			return Result{}, fmt.Errorf("a software CPU for what the host cannot execute: %w", err)
		}
		c.soft = soft
	}
	if err := c.Engine.env.XSave(c.Engine.area); err != nil {
		return Result{}, err
	}
	return c.soft.step(c)
}

// legacyState is what both CPUs know of the extended state.
const legacyState = compX87 | compSSE

func (i *interpreter) step(c *Completer) (Result, error) {
	e := c.Engine
	clear(i.area)
	copy(i.area, e.area[:offLegacyEnd])
	i.area[offXStateBV] = legacyState
	if err := i.load(c); err != nil {
		return Result{}, err
	}
	before, err := i.cpu.Sregs()
	if err != nil {
		return Result{}, err
	}
	if err := i.run(); err != nil {
		return Result{}, err
	}
	result := Result{Op: OpInterpreted}
	if err := i.store(c, &before, &result); err != nil {
		return Result{}, err
	}
	e.counts[OpInterpreted]++
	return result, nil
}

func (i *interpreter) load(c *Completer) error {
	if err := i.cpu.SetXSave(i.area); err != nil {
		return fmt.Errorf("%w (%w)", ErrUnknown, err)
	}
	if err := i.cpu.SetSregs(&c.sregs); err != nil {
		return err
	}
	if err := i.cpu.SetRegs(&c.regs); err != nil {
		return err
	}
	i.unknown = false
	return i.cpu.SetDebug(softcpu.Debug{Step: true, NoInterrupts: true})
}

// run executes one instruction. Anything but its end is not for a software CPU
// on loan: an access to a device belongs to the machine.
func (i *interpreter) run() error {
	for {
		x, err := i.cpu.Run()
		switch {
		case err != nil:
			return err
		case i.unknown:
			return ErrUnknown
		case x.Reason == x86.ExitInterrupted:
		case x.Reason == x86.ExitDebug:
			return nil
		default:
			return fmt.Errorf("%w: it leads to an exit (%v)", ErrUnknown, x.Reason)
		}
	}
}

// store takes over what the instruction, or the exception that it raised, has
// changed. Control registers it cannot have; their values on the software CPU
// lack what that one does not know.
func (i *interpreter) store(c *Completer, before *x86.Sregs, result *Result) (err error) {
	c.Engine.noteStore()
	if c.regs, err = i.cpu.Regs(); err != nil {
		return err
	}
	after, err := i.cpu.Sregs()
	if err != nil {
		return err
	}
	if after.CS != before.CS || after.SS != before.SS || after.CR2 != before.CR2 {
		c.sregs.CS, c.sregs.SS, c.sregs.CR2 = after.CS, after.SS, after.CR2
		result.Sregs = true
	}
	var legacy [offLegacyEnd]byte
	copy(legacy[:], i.area)
	if err := i.cpu.XSave(i.area); err != nil {
		return err
	}
	copy(i.area[offMXCSRMask:offST], legacy[offMXCSRMask:])
	if legacy == [offLegacyEnd]byte(i.area) {
		return nil
	}
	copy(c.Engine.area, i.area[:offLegacyEnd])
	if c.Engine.putState(legacyState) != done {
		return c.Engine.err
	}
	return nil
}

// noteStore tells who tracks the VMM's writes that the instruction's memory
// operand, at most an FXSAVE area, may have been written.
func (e *Engine) noteStore() {
	if !e.in.hasModRM() || !e.isMem() {
		return
	}
	off, seg := e.offset()
	const most = 512
	at, v := e.linear(seg, off, 1, paging.Read)
	if v != done {
		return
	}
	for _, a := range [...]uint64{at, at + most - 1} {
		if gpa, _, ok := e.cpu.Translate(e.mem, e.wrap(a), paging.Read); ok {
			_, _ = e.mem.WritableBytes(gpa, 1)
		}
	}
}
