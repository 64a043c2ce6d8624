// Process 1 of the guests that are measured. It says "user space" and then does
// the job that the kernel's command line names: job=exit, job=idle, or job=read
// with size= and count=, that many O_DIRECT reads of so many bytes from the
// first 8 MiB of /dev/vda. At its end it restarts the machine, or with hold=1
// does nothing more. It needs no library:
//   gcc -O2 -static -nostdlib -fno-stack-protector -fcf-protection=none -o init init.c
#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/reboot.h>

#define DISK (8 << 20)

static long call(long n, long a, long b, long c, long d, long e)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return r;
}

static void say(const char *s)
{
	long n = 0;
	while (s[n])
		n++;
	call(__NR_write, 1, (long)s, n, 0, 0);
}

// value returns what follows name in the environment, which is where the kernel
// puts the words of its command line that it does not know.
static const char *value(char **env, const char *name)
{
	for (; *env; env++) {
		const char *e = *env, *n = name;
		while (*n && *e == *n)
			e++, n++;
		if (!*n)
			return e;
	}
	return "";
}

static long number(const char *s)
{
	long n = 0;
	while (*s >= '0' && *s <= '9')
		n = 10 * n + *s++ - '0';
	return n;
}

static char buffer[1 << 20] __attribute__((aligned(4096)));

static void read_disk(long size, long count)
{
	call(__NR_mount, (long)"dev", (long)"/dev", (long)"devtmpfs", 0, 0);
	long fd = call(__NR_open, (long)"/dev/vda", O_RDONLY | 040000 /* O_DIRECT */, 0, 0, 0);
	if (fd < 0 || size <= 0 || size > (long)sizeof buffer) {
		say("no disk\n");
		return;
	}
	say("begin\n");
	for (long i = 0; i < count; i++)
		if (call(__NR_pread64, fd, (long)buffer, size, i * size % DISK, 0) != size) {
			say("short read\n");
			return;
		}
	say("done\n");
}

__attribute__((used)) void start(long *sp)
{
	char **env = (char **)(sp + 1 + *sp + 1);
	const char *job = value(env, "job=");

	say("user space\n");
	if (*job == 'r')
		read_disk(number(value(env, "size=")), number(value(env, "count=")));
	while (*job == 'i' || *value(env, "hold="))
		call(__NR_pause, 0, 0, 0, 0, 0);
	call(__NR_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART, 0, 0);
	for (;;)
		call(__NR_pause, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
