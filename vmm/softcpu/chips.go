package softcpu

import "time"

type turns struct{}

func (vm *VM) addChips(c *cpu) error                                    { return nil }
func (vm *VM) chipLoad(c *cpu, phys uint64, size uint8) (uint64, bool)  { return 0, false }
func (vm *VM) chipStore(c *cpu, phys uint64, size uint8, v uint64) bool { return false }
func (vm *VM) portLoad(c *cpu, port uint16, size uint8) (uint64, bool)  { return 0, false }
func (vm *VM) portStore(c *cpu, port uint16, size uint8, v uint64) bool { return false }
func (vm *VM) apicReadMSR(c *cpu, i uint32) (uint64, bool)              { return 0, false }
func (vm *VM) apicWriteMSR(c *cpu, i uint32, v uint64) bool             { return false }
func (vm *VM) apicSetBase(c *cpu, v uint64) bool                        { return true }
func (vm *VM) acknowledge(c *cpu) (uint8, bool)                         { return 0, false }
func (c *cpu) taskPriority() uint64                                     { return c.cr8 }
func (c *cpu) setTaskPriority(v uint64)                                 { c.cr8 = v }
func (c *cpu) yield()                                                   {}
func (vm *VM) ticks(c *cpu) uint64                                      { return uint64(time.Since(vm.start)) }
