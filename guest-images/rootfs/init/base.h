/* What every part of init shares: system calls that nolibc lacks, and small
 * string helpers. There is no libc: nolibc, from the kernel's source, is the
 * whole run-time, so the program starts with one page fault or two. */
#ifndef BASE_H
#define BASE_H

#include "nolibc.h"
#include <linux/fcntl.h>
#include <linux/mount.h>

#ifndef O_PATH
#include <asm/fcntl.h>
#endif

/* Functions, not nolibc's macros themselves: those put each argument in its
 * register in turn, and a call in a later one would clobber the earlier. */
static inline long call0(long n) { return my_syscall0(n); }
static inline long call1(long n, long a) { return my_syscall1(n, a); }
static inline long call2(long n, long a, long b) { return my_syscall2(n, a, b); }
static inline long call3(long n, long a, long b, long c) { return my_syscall3(n, a, b, c); }
static inline long call4(long n, long a, long b, long c, long d) { return my_syscall4(n, a, b, c, d); }
static inline long call5(long n, long a, long b, long c, long d, long e) { return my_syscall5(n, a, b, c, d, e); }
static inline long call6(long n, long a, long b, long c, long d, long e, long f)
{
	return my_syscall6(n, a, b, c, d, e, f);
}

#define sys0(n)                   call0(__NR_##n)
#define sys1(n, a)                call1(__NR_##n, (long)(a))
#define sys2(n, a, b)             call2(__NR_##n, (long)(a), (long)(b))
#define sys3(n, a, b, c)          call3(__NR_##n, (long)(a), (long)(b), (long)(c))
#define sys4(n, a, b, c, d)       call4(__NR_##n, (long)(a), (long)(b), (long)(c), (long)(d))
#define sys5(n, a, b, c, d, e)    call5(__NR_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define sys6(n, a, b, c, d, e, f) call6(__NR_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#define LEN(a) (sizeof(a) / sizeof((a)[0]))

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum { SIG_HUP = 1, SIG_INT = 2, SIG_KILL = 9, SIG_USR1 = 10, SIG_USR2 = 12,
       SIG_PIPE = 13, SIG_TERM = 15, SIG_CHLD = 17, SIG_CONT = 18,
       SIG_HALT = 37, SIG_POWEROFF = 38, SIG_REBOOT = 39 };

struct span { const u8 *p; u32 n; };

/* Output: to standard error, which is the kernel's console in PID 1. */
void say(const char *a, const char *b, long err);

/* format builds a string: %s string, %d long, %% percent. Always terminated;
 * what does not fit is cut off. Returns the length. */
int format(char *buf, u32 size, const char *f, ...);

/* read_file reads at most size-1 bytes and terminates them; -errno if it fails. */
long read_file(const char *path, char *buf, u32 size);
long write_file(const char *path, int flags, const char *text);

/* make_dirs creates path and its parents; 0 or -errno. */
long make_dirs(const char *path, int mode);

u64 now_ms(void);

/* spawn runs path in a child that shares memory until it calls exec. before,
 * which runs in the child, must neither return to its caller's caller nor
 * touch what the parent relies on. Returns the pid, or -errno if exec or
 * before failed. */
struct spawn {
	const char *path;
	char **argv;
	char **envp;
	long (*before)(void *arg);
	void *arg;
};
long spawn(struct spawn *s);

/* find_program looks name up in path_list; 0 and the result in out, or -errno. */
long find_program(const char *name, const char *path_list, char *out, u32 size);

#endif
