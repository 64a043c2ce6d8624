package clinic_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/clinic"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// writeCore makes a core of 1 MiB, where 0xffffffff80000000 is mapped to
// 0x4000 and the pages up to it are zero.
func writeCore(t *testing.T) (string, *memory.Guest) {
	t.Helper()
	mem, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	for at, v := range map[memory.Addr]uint64{0x1ff8: 0x2003, 0x2ff0: 0x3003, 0x3000: 0x8003,
		0x8000: 0x4003, 0x8008: 0x5003, 0x8010: 0x9003, 0x8018: 0xfee00003} {
		if err := mem.WriteAt(binary.LittleEndian.AppendUint64(nil, v), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := mem.WriteAt([]byte("a guest's text\x00"), 0x5010); err != nil {
		t.Fatal(err)
	}
	cpus := make([]clinic.CoreCPU, 2)
	for i := range cpus {
		s := &cpus[i].Sregs
		s.CR0, s.CR3, s.CR4, s.EFER = x86.CR0PE|x86.CR0PG, 0x1000, x86.CR4PAE, x86.EFERLMA
		s.CS = x86.Segment{Selector: 0x10, L: 1}
		cpus[i].Regs = x86.Regs{RIP: 0xffffffff80000000 + uint64(i), RAX: uint64(100 + i)}
	}
	path := filepath.Join(t.TempDir(), "core")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := clinic.WriteCore(f, mem, cpus); err != nil {
		t.Fatal(err)
	}
	return path, mem
}

func TestCore(t *testing.T) {
	path, mem := writeCore(t)
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Type != elf.ET_CORE || f.Machine != elf.EM_X86_64 {
		t.Errorf("%v %v", f.Type, f.Machine)
	}
	var loads []elf.ProgHeader
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		loads = append(loads, p.ProgHeader)
		got := make([]byte, p.Filesz)
		if _, err := p.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		want, err := mem.Bytes(memory.Addr(p.Paddr), p.Filesz)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%#x: not the guest's memory (%v)", p.Paddr, err)
		}
	}
	if len(loads) != 3 || loads[1].Vaddr != 0xffffffff80000000 || loads[1].Filesz != 0x2000 || loads[2].Paddr != 0x9000 {
		t.Errorf("%+v", loads)
	}
	if info, err := os.Stat(path); err != nil || info.Size() < 1<<20 {
		t.Errorf("%v %v", info, err)
	}
}

func TestCoreInGDB(t *testing.T) {
	program, err := exec.LookPath("gdb")
	if err != nil {
		t.Skip("no gdb in PATH")
	}
	path, _ := writeCore(t)
	out, err := exec.Command(program, "-nx", "-batch", "-ex", "set architecture i386:x86-64", "-ex", "core-file "+path,
		"-ex", "info threads", "-ex", "thread 2", "-ex", "p $rax", "-ex", "p/x $rip", "-ex", "x/s 0xffffffff80001010").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"= 101", "= 0xffffffff80000001", `"a guest's text"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// Tables that map themselves at every level end all the same.
func TestCoreOfHostileTables(t *testing.T) {
	mem, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for i := range memory.Addr(512) {
		if err := mem.WriteAt(binary.LittleEndian.AppendUint64(nil, 0x1003|uint64(i%2)<<12), 0x1000+8*i); err != nil {
			t.Fatal(err)
		}
	}
	c := clinic.CoreCPU{Sregs: x86.Sregs{CR0: x86.CR0PE | x86.CR0PG, CR3: 0x1000, CR4: x86.CR4PAE, EFER: x86.EFERLMA}}
	f, err := os.Create(filepath.Join(t.TempDir(), "core"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := clinic.WriteCore(f, mem, []clinic.CoreCPU{c}); err != nil {
		t.Fatal(err)
	}
	if err := clinic.WriteCore(f, mem, nil); err == nil {
		t.Error("a core without CPUs")
	}
}
