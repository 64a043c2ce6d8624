/* exec: a program with its three streams, or with a terminal. */
#include "agent.h"
#include <linux/tty.h>
#include <asm/ioctls.h>
#include <asm/termios.h>

enum { EXEC_TTY = 1 };
#define MAX_STRINGS 4096

/* How long output may still trickle out of a terminal after its program ended:
 * the kernel moves it by a work queue. */
#define TTY_LINGER_MS 250

struct child {
	int in, out, err, tty;
	u32 uid, gid;
	const char *cwd;
};

static long child_setup(void *arg)
{
	struct child *k = arg;
	long r;

	sys0(setsid);
	sys2(dup2, k->in, 0);
	sys2(dup2, k->out, 1);
	sys2(dup2, k->err, 2);
	if (k->tty)
		sys3(ioctl, 0, TIOCSCTTY, 0);
	if (k->gid && ((r = sys2(setgroups, 0, 0)) || (r = sys1(setgid, k->gid))))
		return r;
	if (k->uid && (r = sys1(setuid, k->uid)))
		return r;
	if (*k->cwd && (r = sys1(chdir, k->cwd)))
		return r;
	return 0;
}

static long open_tty(struct exec_job *e, struct child *k, u16 rows, u16 cols)
{
	struct winsize w = { .ws_row = rows, .ws_col = cols };
	int unlock = 0;
	long m = sys3(open, "/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK, 0), s;

	if (m < 0)
		return m;
	sys3(ioctl, m, TIOCSPTLCK, &unlock);
	sys3(ioctl, m, TIOCSWINSZ, &w);
	s = sys3(ioctl, m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s < 0) {
		sys1(close, m);
		return s;
	}
	e->in = e->out = m;
	k->in = k->out = k->err = s;
	k->tty = 1;
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		sys1(close, *fd);
	*fd = -1;
}

/* open_pipes gives the child blocking ends and keeps non-blocking ones. */
static long open_pipes(struct exec_job *e, struct child *k)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 };
	long r;

	if ((r = sys2(pipe2, in, O_CLOEXEC)) || (r = sys2(pipe2, out, O_CLOEXEC)) ||
	    (r = sys2(pipe2, err, O_CLOEXEC))) {
		close_fd(&in[0]);
		close_fd(&in[1]);
		close_fd(&out[0]);
		close_fd(&out[1]);
		return r;
	}
	k->in = in[0];
	k->out = out[1];
	k->err = err[1];
	e->in = in[1];
	e->out = out[0];
	e->err = err[0];
	sys3(fcntl, e->in, F_SETFL, O_WRONLY | O_NONBLOCK);
	sys3(fcntl, e->out, F_SETFL, O_RDONLY | O_NONBLOCK);
	sys3(fcntl, e->err, F_SETFL, O_RDONLY | O_NONBLOCK);
	return 0;
}

static void close_ours(struct exec_job *e)
{
	if (e->tty)
		e->out = -1;
	close_fd(&e->in);
	close_fd(&e->out);
	close_fd(&e->err);
}

/* strings reads a counted list into a null-terminated vector. */
static char **strings(struct cursor *q, char **v, u32 max)
{
	u32 n = get_u16(q), i;

	if (n >= max)
		q->bad = 1;
	for (i = 0; !q->bad && i < n; i++)
		v[i] = get_string(q);
	v[q->bad ? 0 : n] = 0;
	return v;
}

static const char *path_of(char **env)
{
	for (; *env; env++)
		if (!strncmp(*env, "PATH=", 5))
			return *env + 5;
	return "/bin:/usr/local/bin";
}

static long launch(struct exec_job *e, struct child *k, char **argv, char **env, u16 rows, u16 cols)
{
	char path[PATH_MAX];
	struct spawn s = { path, argv, env, child_setup, k };
	long r = find_program(argv[0], path_of(env), path, sizeof(path));

	if (r)
		return r;
	r = e->tty ? open_tty(e, k, rows, cols) : open_pipes(e, k);
	if (r)
		return r;
	r = spawn(&s);
	sys1(close, k->in);
	if (!e->tty) {
		sys1(close, k->out);
		sys1(close, k->err);
	}
	if (r < 0)
		close_ours(e);
	return r;
}

void exec_start(struct conn *c, struct cursor *q)
{
	static char *argv[MAX_STRINGS], *env[MAX_STRINGS];
	struct exec_job *e = &c->exec;
	struct child k = { 0 };
	u32 flags = get_u32(q);
	u16 rows = get_u16(q), cols = get_u16(q);
	u8 pid[4];
	long r;

	k.uid = get_u32(q);
	k.gid = get_u32(q);
	k.cwd = get_string(q);
	strings(q, argv, MAX_STRINGS);
	strings(q, env, MAX_STRINGS);
	if (q->bad || !argv[0]) {
		reply_error(c, EINVAL, "malformed exec request");
		return;
	}
	e->tty = !!(flags & EXEC_TTY);
	e->in = e->out = e->err = -1;
	e->last_newline = 1;
	r = launch(e, &k, argv, env, rows, cols);
	if (r < 0) {
		reply_error(c, r, argv[0]);
		return;
	}
	e->pid = r;
	c->job = JOB_EXEC;
	put_u32(pid, r);
	frame(c, OUT_STARTED, pid, 4);
}

static void take_stdin(struct conn *c, struct cursor *q)
{
	struct exec_job *e = &c->exec;
	u32 n = q->end - q->p, at, first;

	if (n > STDIN_WINDOW - e->in_len || e->in_ended) {
		reply_error(c, EPROTO, "more input than the window allows");
		return;
	}
	at = (e->in_head + e->in_len) % STDIN_WINDOW;
	first = STDIN_WINDOW - at < n ? STDIN_WINDOW - at : n;
	memcpy(e->in_ring + at, q->p, first);
	memcpy(e->in_ring, q->p + first, n - first);
	e->in_len += n;
	if (n)
		e->last_newline = q->end[-1] == '\n' || q->end[-1] == '\r';
}

/* end_terminal_input types end-of-file: twice where a line is unfinished,
 * since the first only hands that line over. */
static void end_terminal_input(struct exec_job *e)
{
	u32 n = e->last_newline ? 1 : 2;

	while (n-- && e->in_len < STDIN_WINDOW) {
		e->in_ring[(e->in_head + e->in_len) % STDIN_WINDOW] = 4;
		e->in_len++;
	}
}

void exec_input(struct conn *c, int type, struct cursor *q)
{
	struct exec_job *e = &c->exec;
	struct winsize w = { 0 };

	switch (type) {
	case IN_STDIN:
		take_stdin(c, q);
		break;
	case IN_STDIN_END:
		if (!e->in_ended && e->tty)
			end_terminal_input(e);
		e->in_ended = 1;
		break;
	case IN_SIGNAL: {
		u32 sig = get_u32(q);

		if (!q->bad && sig < 65 && e->pid)
			sys2(kill, -e->pid, sig);
		break;
	}
	case IN_RESIZE:
		w.ws_row = get_u16(q);
		w.ws_col = get_u16(q);
		if (!q->bad && e->tty && e->out >= 0)
			sys3(ioctl, e->out, TIOCSWINSZ, &w);
		break;
	default:
		reply_error(c, EPROTO, "unexpected frame during exec");
	}
}

static void pump_stdin(struct conn *c)
{
	struct exec_job *e = &c->exec;

	while (e->in_len && e->in >= 0) {
		u32 n = STDIN_WINDOW - e->in_head;
		long r;

		if (n > e->in_len)
			n = e->in_len;
		r = sys3(write, e->in, e->in_ring + e->in_head, n);
		if (r == -EAGAIN)
			break;
		if (r < 0) { /* the program no longer reads */
			r = e->in_len;
			if (!e->tty)
				close_fd(&e->in);
		}
		e->in_head = (e->in_head + r) % STDIN_WINDOW;
		e->in_len -= r;
		e->consumed += r;
	}
	if (e->in < 0) {
		e->consumed += e->in_len;
		e->in_len = 0;
	}
	if (!e->in_len && e->in_ended && e->in >= 0 && !e->tty)
		close_fd(&e->in);
	if (e->in_ended)
		e->consumed = 0; /* nothing more comes, and an end that we typed was never sent */
	if (e->consumed && (e->consumed >= STDIN_WINDOW / 4 || !e->in_len) && room(c) >= 4) {
		u8 b[4];

		put_u32(b, e->consumed);
		frame(c, OUT_WINDOW, b, 4);
		e->consumed = 0;
	}
}

/* pump_output moves what one stream has into frames. Returns 1 when the stream
 * has nothing more now, 0 when the connection is what is full. */
static int pump_output(struct conn *c, int *fd, int type)
{
	while (*fd >= 0) {
		u32 n = room(c);
		u8 *p = c->out + c->out_at + c->out_len;
		long r;

		if (n < 4096)
			return 0;
		if (n > 32768)
			n = 32768;
		r = sys3(read, *fd, p + HEADER, n);
		if (r == -EAGAIN || r == -EINTR)
			return 1;
		if (r <= 0) { /* end of file, or a terminal that hung up (EIO) */
			if (c->exec.tty)
				c->exec.in = -1;
			close_fd(fd);
			return 1;
		}
		frame(c, type, p + HEADER, r);
	}
	return 1;
}

void exec_pump(struct conn *c)
{
	struct exec_job *e = &c->exec;
	int dry;
	u8 b[8];

	pump_stdin(c);
	dry = pump_output(c, &e->out, OUT_STDOUT);
	dry &= pump_output(c, &e->err, OUT_STDERR);
	if (!e->exited || !dry)
		return;
	if (e->tty && e->out >= 0 && now_ms() - e->exit_ms < TTY_LINGER_MS)
		return;
	if (WIFEXITED(e->status)) {
		put_u32(b, WEXITSTATUS(e->status));
		put_u32(b + 4, 0);
	} else {
		put_u32(b, 0);
		put_u32(b + 4, WTERMSIG(e->status));
	}
	frame(c, OUT_EXIT, b, 8);
	close_ours(e);
	c->job = JOB_NONE;
	c->closing = FLUSHING;
}

void exec_reaped(struct conn *c, int status)
{
	c->exec.pid = 0;
	c->exec.exited = 1;
	c->exec.status = status;
	c->exec.exit_ms = now_ms();
}

/* exec_abandon: the host went away. The program learns it as if its terminal
 * had hung up, and has two seconds to comply (see agent.c). */
void exec_abandon(struct conn *c)
{
	close_ours(&c->exec);
	if (c->exec.pid) {
		sys2(kill, -c->exec.pid, SIG_HUP);
		sys2(kill, -c->exec.pid, SIG_CONT);
	}
}

int exec_poll(struct conn *c, struct pollfd *p)
{
	struct exec_job *e = &c->exec;
	int n = 0, can = room(c) >= 4096;

	if (e->in >= 0 && e->in_len)
		p[n++] = (struct pollfd){ e->in, POLLOUT, 0 };
	if (e->out >= 0 && can)
		p[n++] = (struct pollfd){ e->out, POLLIN, 0 };
	if (e->err >= 0 && can)
		p[n++] = (struct pollfd){ e->err, POLLIN, 0 };
	return n;
}
