/* probe JOBS STATUS [vm]: the program that `vitrine compare` measures, the same
 * bytes in every engine. It needs no library, no /proc and no second thread, so
 * that what is measured is the engine and not the program's own start.
 *
 * Its first acts are to read CLOCK_MONOTONIC and to write the byte 02 to
 * standard output: the arrival of that byte is the moment that the host stamps.
 * JOBS are cpu, memory, files, syscalls, idle and load, with commas, or "-" for
 * none. Each is framed by 05 and 06. At the end stands one line,
 *
 *   probe1 STATUS T0 CARRY FSTYPE SUM NAME=NANOSECONDS… \n 04
 *
 * in decimal, CARRY being how long the write of the first byte took by the
 * program's own clock and SUM the same in every engine if the work was done.
 * With "vm" the program is process 1 of a machine, and resets it at the end. */
typedef unsigned long u64;
typedef unsigned char u8;

enum { SYS_read, SYS_write, SYS_open, SYS_close, SYS_mmap = 9, SYS_munmap = 11, SYS_pause = 34, SYS_nanosleep = 35,
       SYS_exit = 60, SYS_unlink = 87, SYS_getppid = 110, SYS_statfs = 137, SYS_sync = 162, SYS_reboot = 169,
       SYS_clock_gettime = 228 };

static inline long sys(long n, long a, long b, long c, long d, long e, long f)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return r;
}
#define sys1(n, a) sys(n, (long)(a), 0, 0, 0, 0, 0)
#define sys2(n, a, b) sys(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define sys3(n, a, b, c) sys(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)

/* The sizes of the workloads: some milliseconds on a plain host, and no more
 * than a few seconds where guest kernels are emulated. */
enum { CPU_TURNS = 10000000, MEMORY = 4 << 20, CHASES = 1000000, FILES = 100, CALLS = 5000 };

static u64 sum = 1;

struct text { char b[512]; u64 n; };
static struct text line, times;

static u64 now(void)
{
	u64 t[2];

	sys2(SYS_clock_gettime, 1 /* CLOCK_MONOTONIC */, t);
	return t[0] * 1000000000ul + t[1];
}

static void mark(char c) { sys3(SYS_write, 1, &c, 1); }

static void text(struct text *t, const char *s)
{
	while (*s && t->n < sizeof(t->b))
		t->b[t->n++] = *s++;
}

static void number(struct text *t, u64 n)
{
	char b[24];
	int i = sizeof(b) - 1;

	b[i] = 0;
	do
		b[--i] = '0' + n % 10;
	while (n /= 10);
	text(t, b + i);
}

static u64 next(u64 x)
{
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ x << 17;
}

static void cpu(void)
{
	u64 i;

	for (i = 0; i < CPU_TURNS; i++)
		sum = next(sum);
}

/* memory touches fresh pages, fills them, and then jumps about in them. */
static void memory(void)
{
	u64 *p = (u64 *)sys(SYS_mmap, 0, MEMORY, 3, 0x22 /* private, anonymous */, -1, 0);
	u64 n = MEMORY / sizeof(*p), i, x = 88172645463325252ul;

	if ((long)p < 0 && (long)p > -4096) {
		sum = 0;
		return;
	}
	for (i = 0; i < n; i++)
		p[i] = x = next(x);
	for (i = 0, x = 0; i < CHASES; i++)
		x = p[(x ^ i) % n];
	sum += x;
	sys2(SYS_munmap, p, MEMORY);
}

/* files makes, writes, reads and removes small files in ./tmp. */
static void files(void)
{
	static u8 page[4096];
	char name[] = "tmp/probe-000";
	long i, fd;

	for (i = 0; i < FILES; i++) {
		name[10] = '0' + i / 100;
		name[11] = '0' + i / 10 % 10;
		name[12] = '0' + i % 10;
		page[0] = i;
		fd = sys3(SYS_open, name, 0102 | 01000, 0600);
		if (fd < 0 || sys3(SYS_write, fd, page, sizeof(page)) != sizeof(page)) {
			sum = 0;
			return;
		}
		sys1(SYS_close, fd);
		fd = sys3(SYS_open, name, 0, 0);
		page[0] = 255;
		sys3(SYS_read, fd, page, sizeof(page));
		sys1(SYS_close, fd);
		sys1(SYS_unlink, name);
		sum += page[0];
	}
}

static void syscalls(void)
{
	int i;

	for (i = 0; i < CALLS; i++)
		sys1(SYS_getppid, 0);
	sum += CALLS;
}

static void idle(void)
{
	for (;;)
		sys1(SYS_pause, 0);
}

/* load is quiet for a second and busy for a second, then quiet. */
static void load(void)
{
	u64 second[2] = { 1, 0 }, end;

	sys2(SYS_nanosleep, second, 0);
	for (end = now() + 1000000000ul; now() < end;) {
		u64 i, x = 1;

		for (i = 0; i < 100000; i++) {
			x = next(x);
			__asm__ volatile("" : "+r"(x));
		}
	}
	idle();
}

static const struct { const char *name; void (*run)(void); } jobs[] = {
	{ "cpu", cpu }, { "memory", memory }, { "files", files }, { "syscalls", syscalls }, { "idle", idle }, { "load", load },
};

/* word says whether s begins with the word w, which ends at a comma or the end. */
static int word(const char *s, const char *w)
{
	for (; *w; s++, w++)
		if (*s != *w)
			return 0;
	return !*s || *s == ',';
}

static void run(const char *list)
{
	u64 i, from, took;

	for (;;) {
		for (i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
			if (!word(list, jobs[i].name))
				continue;
			mark(5);
			from = now();
			jobs[i].run();
			took = now() - from;
			mark(6);
			text(&times, " ");
			text(&times, jobs[i].name);
			text(&times, "=");
			number(&times, took);
		}
		while (*list && *list != ',')
			list++;
		if (!*list++)
			return;
	}
}

static u64 decimal(const char *s)
{
	u64 n = 0;

	for (; *s >= '0' && *s <= '9'; s++)
		n = n * 10 + *s - '0';
	return n;
}

static void report(u64 status, u64 t0, u64 carry, u64 fstype)
{
	u64 numbers[] = { status, t0, carry, fstype, sum }, i;

	text(&line, "probe1");
	for (i = 0; i < 5; i++) {
		text(&line, " ");
		number(&line, numbers[i]);
	}
	times.b[times.n < sizeof(times.b) ? times.n : sizeof(times.b) - 1] = 0;
	text(&line, times.b);
	text(&line, "\n\004");
	sys3(SYS_write, 1, line.b, line.n);
}

__attribute__((used, noreturn)) static void start(long *stack)
{
	u64 t0 = now(), fs[16] = { 0 }, carry, status;
	char **argv = (char **)(stack + 1);
	long argc = stack[0];

	mark(2);
	carry = now() - t0;
	status = argc > 2 ? decimal(argv[2]) : 0;
	if (argc > 1)
		run(argv[1]);
	sys2(SYS_statfs, "tmp", fs);
	report(status, t0, carry, fs[0]);
	if (argc > 3 && word(argv[3], "vm"))
		for (;;)
			sys(SYS_reboot, 0xfee1dead, 672274793, 0x01234567, 0, 0, 0);
	for (;;)
		sys1(SYS_exit, status);
}

__asm__(".globl _start\n_start: xor %ebp,%ebp\nmov %rsp,%rdi\nand $-16,%rsp\ncall start\n");
