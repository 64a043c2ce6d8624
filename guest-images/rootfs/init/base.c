#include "base.h"

void say(const char *a, const char *b, long err)
{
	char line[512];
	int n;

	if (err)
		n = format(line, sizeof(line), "init: %s%s: error %d\n", a, b, err < 0 ? -err : err);
	else
		n = format(line, sizeof(line), "init: %s%s\n", a, b);
	sys3(write, 2, line, n);
}

int format(char *buf, u32 size, const char *f, ...)
{
	char num[24];
	const char *s;
	u32 n = 0;
	va_list args;

	va_start(args, f);
	for (; *f; f++) {
		char one[2] = { *f, 0 };

		s = one;
		if (*f == '%' && f[1]) {
			f++;
			if (*f == 's') {
				s = va_arg(args, const char *);
			} else if (*f == 'd') {
				i64toa_r(va_arg(args, long), num);
				s = num;
			}
		}
		while (*s && n + 1 < size)
			buf[n++] = *s++;
	}
	va_end(args);
	buf[n] = 0;
	return n;
}

long read_file(const char *path, char *buf, u32 size)
{
	u32 n = 0;
	long fd = sys3(open, path, O_RDONLY | O_CLOEXEC, 0), r;

	if (fd < 0)
		return fd;
	while (n + 1 < size) {
		r = sys3(read, fd, buf + n, size - 1 - n);
		if (r <= 0)
			break;
		n += r;
	}
	buf[n] = 0;
	sys1(close, fd);
	return n;
}

long write_file(const char *path, int flags, const char *text)
{
	long fd = sys3(open, path, O_WRONLY | O_CLOEXEC | flags, 0644), r;

	if (fd < 0)
		return fd;
	r = sys3(write, fd, text, strlen(text));
	sys1(close, fd);
	return r;
}

long make_dirs(const char *path, int mode)
{
	char part[PATH_MAX];
	u32 n = strlen(path), i;
	long r = 0;

	if (n >= sizeof(part))
		return -ENAMETOOLONG;
	memcpy(part, path, n + 1);
	for (i = 1; i <= n; i++) {
		if (part[i] != '/' && part[i] != 0)
			continue;
		part[i] = 0;
		r = sys2(mkdir, part, mode);
		if (r && r != -EEXIST)
			return r;
		part[i] = path[i];
	}
	return 0;
}

u64 now_ms(void)
{
	struct timespec t;

	sys2(clock_gettime, 1, &t);
	return t.tv_sec * 1000ul + t.tv_nsec / 1000000;
}

/* The child of vfork must not return from the function that called it: its
 * parent would find a stack that is no longer true. So it gets a stack of its
 * own and enters run_child, which ends in exec or exit. */
static struct spawn *child_of;
static volatile long child_error;
static u8 child_stack[16384] __attribute__((aligned(16)));

static __attribute__((noreturn, used)) void run_child(void)
{
	struct spawn *s = child_of;
	u64 none = 0;
	long r = 0;

	sys4(rt_sigprocmask, 2 /* SIG_SETMASK */, &none, 0, 8);
	if (s->before)
		r = s->before(s->arg);
	if (!r)
		r = sys3(execve, s->path, s->argv, s->envp);
	child_error = r;
	sys1(exit, 127);
	for (;;)
		;
}

/* CLONE_VM | CLONE_VFORK | SIGCHLD */
#define VFORK_FLAGS (0x100ul | 0x4000ul | 17ul)

long spawn(struct spawn *s)
{
	long ret;
	register long r10 __asm__("r10") = 0;
	register long r8 __asm__("r8") = 0;

	child_of = s;
	child_error = 0;
	__asm__ volatile(
		"syscall\n\t"
		"test %%eax, %%eax\n\t"
		"jnz 1f\n\t"
		"call run_child\n\t"
		"1:"
		: "=a"(ret)
		: "a"((long)__NR_clone), "D"(VFORK_FLAGS), "S"(child_stack + sizeof(child_stack)),
		  "d"(0l), "r"(r10), "r"(r8)
		: "rcx", "r11", "memory", "cc");
	if (ret > 0 && child_error) {
		sys4(wait4, ret, 0, 0, 0);
		return child_error;
	}
	return ret;
}

long find_program(const char *name, const char *path_list, char *out, u32 size)
{
	const char *p = path_list, *end;
	long err = -ENOENT;

	if (strchr(name, '/')) {
		strlcpy(out, name, size);
		return strlen(name) < size ? 0 : -ENAMETOOLONG;
	}
	if (!*name)
		return -ENOENT;
	for (; p && *p; p = end ? end + 1 : 0) {
		u32 n;

		end = strchr(p, ':');
		n = end ? (u32)(end - p) : strlen(p);
		if (!n || n + strlen(name) + 2 > size)
			continue;
		memcpy(out, p, n);
		out[n] = '/';
		strlcpy(out + n + 1, name, size - n - 1);
		if (sys2(access, out, 1) == 0)
			return 0;
		if (sys2(access, out, 0) == 0)
			err = -EACCES;
	}
	return err;
}
