/* init: PID 1 of the default guest, its agent, and, under other names, the
 * commands that are used so often that starting a Go program for them would
 * be felt. */
#include "agent.h"
#include "init.h"
#include <linux/input.h>
#include <linux/signalfd.h>
#include <asm/ioctls.h>

/* A shell that starts at once again after this has failed, or found its device
 * closed, would spin. */
enum { RESPAWN_MS = 1000 };

static char *const shell_env[] = { "PATH=/bin:/usr/local/bin", "HOME=/root", "TERM=linux", "USER=root", 0 };

int shutdown_wanted;
static int console_pid;
static u64 console_again_ms;
static int signals = -1, power_button = -1;

static long console_setup(void *device)
{
	long fd;

	sys0(setsid);
	fd = sys3(open, device, O_RDWR, 0);
	if (fd < 0)
		return fd;
	sys3(ioctl, fd, TIOCSCTTY, 1);
	sys2(dup2, fd, 0);
	sys2(dup2, fd, 1);
	sys2(dup2, fd, 2);
	if (fd > 2)
		sys1(close, fd);
	sys1(chdir, "/root");
	return 0;
}

static void start_console(struct options *o)
{
	static char device[64];
	char *argv[] = { "sh", "-i", 0 };
	struct spawn s = { "/bin/sh", argv, (char **)shell_env, console_setup, device };
	long r;

	format(device, sizeof(device), *o->console == '/' ? "%s" : "/dev/%s", o->console);
	r = spawn(&s);
	console_pid = r > 0 ? (int)r : 0;
	console_again_ms = now_ms() + RESPAWN_MS;
	if (r < 0)
		say("shell on ", device, r);
}

static void open_signals(void)
{
	u64 mask = 1ul << (SIG_CHLD - 1) | 1ul << (SIG_TERM - 1) | 1ul << (SIG_INT - 1) |
	           1ul << (SIG_USR1 - 1) | 1ul << (SIG_USR2 - 1) | 1ul << (SIG_PIPE - 1) |
	           1ul << (SIG_HALT - 1) | 1ul << (SIG_POWEROFF - 1) | 1ul << (SIG_REBOOT - 1);

	sys4(rt_sigprocmask, 0 /* SIG_BLOCK */, &mask, 0, 8);
	signals = sys4(signalfd4, -1, &mask, 8, 04000 | 02000000);
}

static void reap(struct options *o)
{
	int status;
	long pid;

	while ((pid = sys4(wait4, -1, &status, 1 /* WNOHANG */, 0)) > 0) {
		if (pid != console_pid) {
			agent_child(pid, status);
			continue;
		}
		console_pid = 0;
		if (o->exit && !strcmp(o->exit, "poweroff"))
			shutdown_wanted = 1 + SHUTDOWN_POWEROFF;
	}
}

static void take_signals(struct options *o)
{
	struct signalfd_siginfo i;

	while (sys3(read, signals, &i, sizeof(i)) == sizeof(i)) {
		switch (i.ssi_signo) {
		case SIG_CHLD:
			reap(o);
			break;
		case SIG_TERM: case SIG_USR2: case SIG_POWEROFF:
			shutdown_wanted = 1 + SHUTDOWN_POWEROFF;
			break;
		case SIG_INT: case SIG_REBOOT:
			shutdown_wanted = 1 + SHUTDOWN_REBOOT;
			break;
		case SIG_USR1: case SIG_HALT:
			shutdown_wanted = 1 + SHUTDOWN_HALT;
			break;
		}
	}
}

/* The ACPI power button is an input device; kernels without ACPI have none. */
static void take_power_button(void)
{
	struct input_event e;

	while (sys3(read, power_button, &e, sizeof(e)) == sizeof(e))
		if (e.type == EV_KEY && e.code == KEY_POWER && e.value)
			shutdown_wanted = 1 + SHUTDOWN_POWEROFF;
}

static void loop(struct options *o)
{
	static struct pollfd p[3 + 4 * MAX_CONNS];

	while (!shutdown_wanted) {
		int n = 0, timeout = -1;

		if (o->console && !console_pid) {
			u64 now = now_ms();

			if (now >= console_again_ms)
				start_console(o);
			else
				timeout = console_again_ms - now;
		}
		p[n++] = (struct pollfd){ signals, POLLIN, 0 };
		if (power_button >= 0)
			p[n++] = (struct pollfd){ power_button, POLLIN, 0 };
		n += agent_poll(p + n, LEN(p) - n, &timeout);
		sys3(poll, p, n, timeout);
		take_signals(o);
		if (power_button >= 0)
			take_power_button();
		agent_run(p, n);
	}
	agent_flush_all();
}

int init_main(void)
{
	static struct options o;
	long agent;

	port_write(PORT_USER_SPACE);
	boot_mounts(&o);
	open_signals();
	boot_network(&o);
	agent = agent_listen();
	if (!agent)
		port_write(PORT_AGENT_READY);
	else if (!o.console)
		o.console = "console";
	boot_shares(&o);
	power_button = sys3(open, "/dev/input/event0", O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
	loop(&o);
	shutdown_now(shutdown_wanted - 1);
}

/* agent_test_main serves one connection, so that the host's tests can talk to
 * this very program without a guest. */
int agent_test_main(int fd)
{
	static struct options o;
	static struct pollfd p[3 + 4 * MAX_CONNS];
	u64 as_usual[4] = { 0 };
	int i;

	for (i = 1; i < 16; i++) /* what a test's parent ignores, programs would inherit */
		sys4(rt_sigaction, i, &as_usual, 0, 8);
	open_signals();
	agent_adopt(fd);
	for (;;) {
		int timeout = -1, n = 1;

		p[0] = (struct pollfd){ signals, POLLIN, 0 };
		n += agent_poll(p + n, LEN(p) - n, &timeout);
		if (n == 1 && timeout < 0)
			return 0;
		sys3(poll, p, n, timeout);
		take_signals(&o);
		agent_run(p, n);
		if (shutdown_wanted)
			return 100 + shutdown_wanted;
	}
}

int main(int argc, char **argv, char **env)
{
	const char *name = argc ? argv[0] : "", *slash = strrchr(name, '/');

	name = slash ? slash + 1 : name;
	if (getpid() == 1)
		return init_main();
	if (argc == 2 && !strcmp(argv[1], "--serve-stdin"))
		return agent_test_main(dup(0));
	return applet(name, argc, argv, env);
}
