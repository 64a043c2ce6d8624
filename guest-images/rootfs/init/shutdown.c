/* The orderly end: programs first, then file systems, then the machine. */
#include "init.h"
#include <linux/reboot.h>

enum { GRACE_MS = 2000 };

void port_write(u8 value)
{
	if (sys1(iopl, 3) == 0)
		__asm__ volatile("outb %0, %1" : : "a"(value), "d"((u16)PORT));
	sys1(iopl, 0);
}

u8 port_read(void)
{
	u8 v = 0;

	if (sys1(iopl, 3) == 0)
		__asm__ volatile("inb %1, %0" : "=a"(v) : "d"((u16)PORT));
	sys1(iopl, 0);
	return v;
}

/* reap_all waits until no child is left, at most ms milliseconds. */
static int reap_all(int ms)
{
	u64 end = now_ms() + ms;

	for (;;) {
		long r = sys4(wait4, -1, 0, 1 /* WNOHANG */, 0);
		struct timespec t = { 0, 5000000 };

		if (r == -ECHILD)
			return 1;
		if (r > 0)
			continue;
		if (now_ms() >= end)
			return 0;
		sys2(nanosleep, &t, 0);
	}
}

static void end_programs(void)
{
	if (reap_all(0))
		return;
	sys2(kill, -1, SIG_TERM);
	sys2(kill, -1, SIG_CONT);
	if (reap_all(GRACE_MS))
		return;
	sys2(kill, -1, SIG_KILL);
	reap_all(GRACE_MS);
}

/* lasting tells whether a mount holds data that outlives this machine. */
static int lasting(const char *source, const char *type)
{
	return !strncmp(source, "/dev/", 5) || !strcmp(type, "9p") || !strcmp(type, "virtiofs") ||
	       !strncmp(type, "fuse", 4);
}

/* next_word cuts the word off p and returns what follows it. */
static char *next_word(char *p)
{
	while (*p && *p != ' ' && *p != '\n')
		p++;
	if (*p)
		*p++ = 0;
	return p;
}

/* unmount_one parses a line of /proc/mounts: source, target, type, … */
static void unmount_one(char *line)
{
	char *target = next_word(line), *type = next_word(target), *out, *in;

	next_word(type);
	if (!lasting(line, type))
		return;
	for (in = out = target; *in; in++, out++) { /* \040 and the like */
		if (in[0] == '\\' && in[1] && in[2] && in[3]) {
			*out = (in[1] - '0') << 6 | (in[2] - '0') << 3 | (in[3] - '0');
			in += 3;
		} else {
			*out = *in;
		}
	}
	*out = 0;
	if (sys2(umount2, target, 0))
		sys5(mount, 0, target, 0, MS_REMOUNT | MS_RDONLY, 0);
}

static void unmount_all(void)
{
	static char text[32768];
	static char *lines[512];
	long n = read_file("/proc/mounts", text, sizeof(text));
	char *p = text, *end;
	int count = 0;

	if (n <= 0)
		return;
	for (; *p && count < (int)LEN(lines); p = end) {
		lines[count++] = p;
		for (end = p; *end && *end != '\n'; end++)
			;
		if (*end)
			*end++ = 0;
	}
	while (count--)
		unmount_one(lines[count]);
}

static void reboot_as(u32 how)
{
	sys4(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, how, 0);
}

void machine_stop(int kind)
{
	int ours = port_read() == PORT_PRESENT;

	if (kind == SHUTDOWN_REBOOT) {
		if (ours)
			port_write(PORT_REBOOT);
		reboot_as(LINUX_REBOOT_CMD_RESTART);
	}
	if (kind == SHUTDOWN_HALT)
		reboot_as(LINUX_REBOOT_CMD_HALT);
	if (ours)
		port_write(PORT_POWER_OFF);
	/* Not our VMM. Without ACPI a power-off only stops the processor, and the
	 * VMM would wait for ever; most take a reset as the end. */
	if (sys2(access, "/sys/firmware/acpi", 0) == 0)
		reboot_as(LINUX_REBOOT_CMD_POWER_OFF);
	reboot_as(LINUX_REBOOT_CMD_RESTART);
	for (;;)
		sys0(pause);
}

void shutdown_now(int kind)
{
	end_programs();
	sys0(sync);
	unmount_all();
	machine_stop(kind);
}
