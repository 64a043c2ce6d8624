package guestimages

// Parts of the kernels' command lines. A word costs a kernel some 40,000
// instructions, each early and each late parameter being compared with it:
// there is no word here without a reason.
const (
	// CommandLine is what both kernels need with RootFS as the first
	// persistent-memory device. Without rootfstype= every file system is tried;
	// dax=always maps programs from the image instead of copying them; a panic
	// resets the machine at once. Not needed: init= (/sbin/init is there), ro
	// (EROFS is), reboot=k (without ACPI that is what is tried first).
	CommandLine = "console=ttyS0 panic=-1 root=/dev/pmem0 rootfstype=erofs rootflags=dax=always"

	// Quiet keeps the kernel's messages off the console: each character is an
	// exit. They stay readable with dmesg.
	Quiet = "quiet"

	// FewerInstructions belongs on the command line where the host interprets
	// guest kernels. In turn: kernel memory is not write-protected in small
	// pages; locks stay as they were assembled; these parts of /sys are not filled:
	// module/*/parameters, devices/system/cpu/cpu*/cache, bus/event_source,
	// devices/system/{clockevents,clocksource}, kernel/irq.
	FewerInstructions = "rodata=off noreplace-smp initcall_blacklist=param_sysfs_builtin_init," +
		"cacheinfo_sysfs_init,perf_event_sysfs_init,clockevents_init_sysfs,init_clocksource_sysfs,irq_sysfs_init"

	// NoWakeUps is for guests that idle for long: memory is compacted when
	// that is needed, not looked at twice a second (Linux
	// Documentation/admin-guide/sysctl/vm.rst, compaction_proactiveness).
	NoWakeUps = "sysctl.vm.compaction_proactiveness=0"

	// ReportPages belongs to a balloon: free memory is reported to the host in
	// blocks of 128 KiB, not only where 4 MiB are free together.
	ReportPages = "page_reporting.page_reporting_order=5"

	// EmulatedByKVM is for hosts whose KVM has no hardware virtualisation. A
	// turn of rep movsb costs as much there as one of rep movsq; and the
	// time-stamp counter, which a kernel prefers for its clock where the
	// processor says that it never stops, is the host's: it has gone on while a
	// guest was a snapshot, and after a reboot of the host it has gone back.
	EmulatedByKVM = "clearcpuid=erms,fsrm clocksource=kvm-clock"
)

// Words of the command line that the default guest's init understands, each
// with its value appended. docs/agent.md describes them.
const (
	ParamConsole  = "vitrine.console="  // device of a shell that is started again when it ends: ttyS0, hvc0
	ParamExit     = "vitrine.exit="     // poweroff: when that shell ends
	ParamIP       = "vitrine.ip="       // [IFACE:]ADDRESS/BITS, several with commas
	ParamGateway  = "vitrine.gw="       // address
	ParamDNS      = "vitrine.dns="      // addresses, with commas
	ParamHostname = "vitrine.hostname=" // default: vitrine
	ParamNet      = "vitrine.net="      // dhcp: ask for an address, slowly
	ParamMount    = "vitrine.mount="    // TYPE:TAG:PATH[:ro], several with commas; TYPE 9p or virtiofs
	ParamRoot     = "vitrine.root="     // ro: no writable layer over the root
)
