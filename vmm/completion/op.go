package completion

// Op names an operation that was completed, for counts and traces.
type Op uint8

// Operations.
const (
	OpNone Op = iota
	OpADCX
	OpADOX
	OpANDN
	OpBEXTR
	OpBLSI
	OpBLSMSK
	OpBLSR
	OpBZHI
	OpCLAC
	OpCLFlush
	OpCLZero
	OpCMPXCHG16B
	OpCRC32
	OpFLDCW
	OpFNCLEX
	OpFNSTCW
	OpFNSTSW
	OpFWAIT
	OpINT
	OpINT3
	OpINVPCID
	OpInterpreted
	OpLAR
	OpLDMXCSR
	OpLSL
	OpLZCNT
	OpMONITOR
	OpMOVBE
	OpMOVDIR64B
	OpMOVDIRI
	OpMULX
	OpMWAIT
	OpNOP
	OpPDEP
	OpPEXT
	OpPOPCNT
	OpRDFSBASE
	OpRDGSBASE
	OpRDPID
	OpRDRAND
	OpRDSEED
	OpRDTSCP
	OpRORX
	OpSARX
	OpSERIALIZE
	OpSHLX
	OpSHRX
	OpSSEMove
	OpSTAC
	OpSTMXCSR
	OpSWAPGS
	OpSYSCALL
	OpTZCNT
	OpUD
	OpVERR
	OpVERW
	OpVZEROUPPER
	OpWBINVD
	OpWRFSBASE
	OpWRGSBASE
	OpXGETBV
	OpXRSTOR
	OpXRSTORS
	OpXSAVE
	OpXSAVEC
	OpXSAVEOPT
	OpXSAVES
	OpXSETBV
	opCount
)

var opNames = [opCount]string{
	"instruction", "adcx", "adox", "andn", "bextr", "blsi", "blsmsk", "blsr", "bzhi", "clac", "clflush", "clzero",
	"cmpxchg16b", "crc32", "fldcw", "fnclex", "fnstcw", "fnstsw", "fwait", "int", "int3", "invpcid", "interpreted", "lar", "ldmxcsr",
	"lsl", "lzcnt", "monitor", "movbe", "movdir64b", "movdiri", "mulx", "mwait", "nop", "pdep", "pext", "popcnt",
	"rdfsbase", "rdgsbase", "rdpid", "rdrand", "rdseed", "rdtscp", "rorx", "sarx", "serialize", "shlx", "shrx",
	"sse-move", "stac", "stmxcsr", "swapgs", "syscall", "tzcnt", "ud", "verr", "verw", "vzeroupper", "wbinvd",
	"wrfsbase", "wrgsbase", "xgetbv", "xrstor", "xrstors", "xsave", "xsavec", "xsaveopt", "xsaves", "xsetbv",
}

func (o Op) String() string { return opNames[o] }
