/* Small commands as links to init: each starts in a fraction of a Go program's
 * time. They do what POSIX asks of the plain case. */
#include "init.h"
#include <asm/ioctls.h>
#include <asm/termios.h>

static int fail(const char *name, const char *what, long err)
{
	char line[PATH_MAX + 64];
	int n = format(line, sizeof(line), "%s: %s: error %d\n", name, what, err < 0 ? -err : err);

	sys3(write, 2, line, n);
	return 1;
}

static int write_all(const char *p, u64 n)
{
	while (n) {
		long r = sys3(write, 1, p, n);

		if (r == -EINTR)
			continue;
		if (r <= 0)
			return 1;
		p += r;
		n -= r;
	}
	return 0;
}

static int cmd_true(int argc, char **argv, char **env)  { return 0; }
static int cmd_false(int argc, char **argv, char **env) { return 1; }

static int cmd_echo(int argc, char **argv, char **env)
{
	static char out[131072];
	int newline = 1, i = 1;
	u32 n = 0;

	if (argc > 1 && !strcmp(argv[1], "-n")) {
		newline = 0;
		i = 2;
	}
	for (; i < argc; i++)
		n += format(out + n, sizeof(out) - n, i + 1 < argc ? "%s " : "%s", argv[i]);
	if (newline)
		n += format(out + n, sizeof(out) - n, "\n");
	return write_all(out, n);
}

static int cat_fd(int fd)
{
	static char buf[65536];
	long r;

	while ((r = sys3(read, fd, buf, sizeof(buf))) != 0) {
		if (r == -EINTR)
			continue;
		if (r < 0)
			return r;
		if (write_all(buf, r))
			return -EIO;
	}
	return 0;
}

static int cmd_cat(int argc, char **argv, char **env)
{
	int i, status = 0;

	if (argc == 1)
		return cat_fd(0) ? 1 : 0;
	for (i = 1; i < argc; i++) {
		long fd = strcmp(argv[i], "-") ? sys3(open, argv[i], O_RDONLY, 0) : 0, r = fd;

		if (fd >= 0)
			r = cat_fd(fd);
		if (r)
			status = fail("cat", argv[i], r);
		if (fd > 0)
			sys1(close, fd);
	}
	return status;
}

static int cmd_sleep(int argc, char **argv, char **env)
{
	struct timespec t = { 0, 0 };
	const char *s = argc == 2 ? argv[1] : "";
	u64 unit = 100000000;

	if (*s < '0' || *s > '9')
		return fail("sleep", "usage: sleep SECONDS", EINVAL);
	for (; *s >= '0' && *s <= '9'; s++)
		t.tv_sec = t.tv_sec * 10 + *s - '0';
	if (*s == '.')
		for (s++; *s >= '0' && *s <= '9'; s++, unit /= 10)
			t.tv_nsec += (*s - '0') * unit;
	if (*s == 'm')
		t.tv_sec *= 60;
	else if (*s == 'h')
		t.tv_sec *= 3600;
	else if (*s && *s != 's')
		return fail("sleep", argv[1], EINVAL);
	while (sys2(nanosleep, &t, &t) == -EINTR)
		;
	return 0;
}

static int cmd_sync(int argc, char **argv, char **env)
{
	sys0(sync);
	return 0;
}

static int cmd_pwd(int argc, char **argv, char **env)
{
	char path[PATH_MAX + 1];
	long n = sys2(getcwd, path, PATH_MAX);

	if (n < 0)
		return fail("pwd", "current directory", n);
	path[n - 1] = '\n';
	return write_all(path, n);
}

/* env [NAME=VALUE]… [COMMAND ARG…] */
static int cmd_env(int argc, char **argv, char **env)
{
	static char *merged[1024];
	char path[PATH_MAX];
	const char *list = "/bin";
	u32 n = 0, i;
	long r;

	argv++;
	if (*argv && !strcmp(*argv, "-i"))
		argv++;
	else
		for (; env[n] && n < LEN(merged) - 1; n++)
			merged[n] = env[n];
	for (; *argv && strchr(*argv, '='); argv++) {
		u32 key = strchr(*argv, '=') - *argv + 1;

		for (i = 0; i < n && strncmp(merged[i], *argv, key); i++)
			;
		if (i < LEN(merged) - 1)
			merged[i] = *argv;
		if (i == n && n < LEN(merged) - 1)
			n++;
	}
	for (i = 0; i < n; i++) {
		if (!*argv && (write_all(merged[i], strlen(merged[i])) || write_all("\n", 1)))
			return 1;
		if (!strncmp(merged[i], "PATH=", 5))
			list = merged[i] + 5;
	}
	if (!*argv)
		return 0;
	r = find_program(*argv, list, path, sizeof(path));
	if (!r)
		r = sys3(execve, path, argv, merged);
	fail("env", *argv, r);
	return r == -ENOENT ? 127 : 126;
}

/* uname [-asnrvm] */
static int cmd_uname(int argc, char **argv, char **env)
{
	struct utsname u;
	const char *fields[] = { u.sysname, u.nodename, u.release, u.version, u.machine };
	const char *letters = "snrvm", *p;
	char out[400];
	u32 n = 0, i, want = argc > 1 ? 0 : 1;
	int k;

	for (k = 1; k < argc; k++)
		for (p = argv[k] + 1; argv[k][0] == '-' && *p; p++) {
			char *at = strchr(letters, *p);

			if (*p == 'a')
				want = 31;
			else if (at)
				want |= 1 << (at - letters);
			else
				return fail("uname", argv[k], EINVAL);
		}
	sys1(uname, &u);
	for (i = 0; i < LEN(fields); i++)
		if (want & 1 << i)
			n += format(out + n, sizeof(out) - n, n ? " %s" : "%s", fields[i]);
	n += format(out + n, sizeof(out) - n, "\n");
	return write_all(out, n);
}

/* stty size; for the rest there is u-root's. */
static int cmd_stty(int argc, char **argv, char **env)
{
	struct winsize w;
	char out[32];
	long r;

	if (argc != 2 || strcmp(argv[1], "size")) {
		argv[0] = "stty";
		return fail("stty", "/bin/bb", sys3(execve, "/bin/bb", argv, env));
	}
	r = sys3(ioctl, 0, TIOCGWINSZ, &w);
	if (r)
		return fail("stty", "standard input", r);
	return write_all(out, format(out, sizeof(out), "%d %d\n", (long)w.ws_row, (long)w.ws_col));
}

/* These ask PID 1, which ends programs and file systems in order; -f does not. */
static int ask_init(int argc, char **argv, int sig, int kind)
{
	long r;

	if (argc > 1 && !strcmp(argv[1], "-f")) {
		sys0(sync);
		machine_stop(kind);
	}
	r = sys2(kill, 1, sig);
	return r ? fail(argv[0], "ask init", r) : 0;
}

static int cmd_poweroff(int argc, char **argv, char **env)
{
	return ask_init(argc, argv, SIG_USR2, SHUTDOWN_POWEROFF);
}

static int cmd_reboot(int argc, char **argv, char **env)
{
	return ask_init(argc, argv, SIG_INT, SHUTDOWN_REBOOT);
}

static int cmd_halt(int argc, char **argv, char **env)
{
	return ask_init(argc, argv, SIG_USR1, SHUTDOWN_HALT);
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv, char **env);
} applets[] = {
	{ "true", cmd_true },       { "false", cmd_false },   { "echo", cmd_echo },
	{ "cat", cmd_cat },         { "sleep", cmd_sleep },   { "sync", cmd_sync },
	{ "pwd", cmd_pwd },         { "env", cmd_env },       { "uname", cmd_uname },
	{ "stty", cmd_stty },
	{ "poweroff", cmd_poweroff }, { "reboot", cmd_reboot }, { "halt", cmd_halt },
};

int applet(const char *name, int argc, char **argv, char **env)
{
	u32 i;

	for (i = 0; i < LEN(applets); i++)
		if (!strcmp(applets[i].name, name))
			return applets[i].run(argc, argv, env);
	say("this program is PID 1 of a guest; as a command it has no name ", name, 0);
	return 127;
}
