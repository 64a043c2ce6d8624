package x86

// File is a CPU's registers as numbers, for those who compare them: the Reg
// constants are its indices.
type File [RegCount]uint64

// Indices of a File. The general registers have their encodings (SDM vol. 2,
// table 3-1). XMM registers are two numbers each, the low half first.
const (
	RegRIP    = 16
	RegRFLAGS = 17
	RegES     = 18 // selectors: ES CS SS DS FS GS
	RegFSBase = 24
	RegGSBase = 25
	RegCR0    = 26
	RegCR2    = 27
	RegCR3    = 28
	RegCR4    = 29
	RegEFER   = 30
	RegMXCSR  = 31
	RegXMM    = 32
	RegCount  = RegXMM + 32
)

var fileNames = [RegXMM]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
	"es", "cs", "ss", "ds", "fs", "gs", "fs.base", "gs.base", "cr0", "cr2", "cr3", "cr4", "efer", "mxcsr"}

// RegName names register i of a File; "" for one that does not exist.
func RegName(i int) string {
	switch {
	case i < 0 || i >= RegCount:
		return ""
	case i < RegXMM:
		return fileNames[i]
	}
	const digits = "0123456789"
	n, half := (i-RegXMM)/2, [...]string{".low", ".high"}[i&1]
	if n >= 10 {
		return "xmm1" + digits[n-10:n-9] + half
	}
	return "xmm" + digits[n:n+1] + half
}

// Mode is how a CPU decodes instructions.
type Mode uint8

// Modes (SDM vol. 3, 2.2).
const (
	ModeReal      Mode = iota
	ModeVM86           // virtual-8086
	ModeProtected      // 16 or 32 bits
	ModeCompat         // 16 or 32 bits, under a 64-bit kernel
	ModeLong           // 64 bits
)

var modeNames = [...]string{"real", "vm86", "protected", "compat", "long"}

func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "?"
}

// ParseMode is the inverse of Mode.String.
func ParseMode(s string) (Mode, bool) {
	for i, n := range modeNames {
		if n == s {
			return Mode(i), true
		}
	}
	return 0, false
}

// FlagNames lists the flags that are set in RFLAGS, the condition codes first.
func FlagNames(rflags uint64) []string {
	var set []string
	for i := range flagNames {
		if f := &flagNames[i]; rflags&f.bit != 0 {
			set = append(set, f.name)
		}
	}
	return set
}

// AppendFlagNames appends FlagNames with blanks between them.
func AppendFlagNames(b []byte, rflags uint64) []byte {
	begin := len(b)
	for i := range flagNames {
		f := &flagNames[i]
		if rflags&f.bit == 0 {
			continue
		}
		if len(b) > begin {
			b = append(b, ' ')
		}
		b = append(b, f.name...)
	}
	return b
}

// NamedFlags are those that FlagNames knows.
const NamedFlags = FlagCF | FlagPF | FlagAF | FlagZF | FlagSF | FlagOF | FlagDF | FlagIF | FlagTF | FlagNT | FlagRF | FlagVM | FlagAC | FlagID

var flagNames = [...]struct {
	bit  uint64
	name string
}{{FlagCF, "CF"}, {FlagPF, "PF"}, {FlagAF, "AF"}, {FlagZF, "ZF"}, {FlagSF, "SF"}, {FlagOF, "OF"},
	{FlagDF, "DF"}, {FlagIF, "IF"}, {FlagTF, "TF"}, {FlagNT, "NT"}, {FlagRF, "RF"}, {FlagVM, "VM"}, {FlagAC, "AC"}, {FlagID, "ID"}}
