/* The agent's connections: one request each, all served by one poll loop,
 * because a process per request would cost a fork. */
#include "agent.h"
#include "init.h"
#include <linux/socket.h>
#include <linux/vm_sockets.h>

enum { AF_VSOCK_ = 40, SOCK_STREAM_ = 1, SOCK_NONBLOCK_ = 04000, SOCK_CLOEXEC_ = 02000000,
       MSG_NOSIGNAL_ = 0x4000, MSG_DONTWAIT_ = 0x40, SHUT_WR_ = 1 };

/* How long a program may live on after its host hung up. */
#define ABANDONED_MS 2000

/* How long a host may go on sending after the answer. */
#define DRAIN_MS 5000

/* A program that was left behind: it was sent SIGHUP, and will be killed. */
struct leftover { int pid; u64 kill_ms; };

static struct conn *conns[MAX_CONNS];
static struct leftover leftovers[MAX_CONNS];
static int n_conns;
static int listener = -1;

long agent_listen(void)
{
	struct sockaddr_vm a = { .svm_family = AF_VSOCK_, .svm_port = AGENT_PORT, .svm_cid = VMADDR_CID_ANY };
	u32 cid = VMADDR_CID_ANY;
	long fd = sys3(open, "/dev/vsock", O_RDONLY | O_CLOEXEC, 0), r;

	if (fd < 0)
		return fd;
	/* Without a device, a listener opens all the same, and nobody ever connects. */
	sys3(ioctl, fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid);
	sys1(close, fd);
	if (cid == VMADDR_CID_ANY || cid == VMADDR_CID_LOCAL)
		return -ENODEV;
	fd = sys3(socket, AF_VSOCK_, SOCK_STREAM_ | SOCK_NONBLOCK_ | SOCK_CLOEXEC_, 0);
	if (fd < 0)
		return fd;
	r = sys3(bind, fd, &a, sizeof(a));
	if (!r)
		r = sys2(listen, fd, MAX_CONNS);
	if (r) {
		sys1(close, fd);
		return r;
	}
	listener = fd;
	return 0;
}

void agent_adopt(int fd)
{
	/* Anonymous memory: pages of the buffers that are never used never exist. */
	struct conn *c = mmap(0, sizeof(*c), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (c == MAP_FAILED || n_conns == MAX_CONNS) {
		sys1(close, fd);
		return;
	}
	c->fd = fd;
	c->get_fd = c->list.fd = c->put.fd = -1;
	c->exec.in = c->exec.out = c->exec.err = -1;
	conns[n_conns++] = c;
}

static void leave_behind(int pid)
{
	u32 i;

	for (i = 0; i < LEN(leftovers); i++)
		if (!leftovers[i].pid) {
			leftovers[i] = (struct leftover){ pid, now_ms() + ABANDONED_MS };
			return;
		}
	sys2(kill, -pid, SIG_KILL);
}

static void drop(int i)
{
	struct conn *c = conns[i];

	exec_abandon(c);
	if (c->exec.pid)
		leave_behind(c->exec.pid);
	put_abandon(c);
	if (c->get_fd >= 0)
		sys1(close, c->get_fd);
	if (c->list.fd >= 0)
		sys1(close, c->list.fd);
	sys1(close, c->fd);
	munmap(c, sizeof(*c));
	conns[i] = conns[--n_conns];
}

static void ping(struct conn *c)
{
	struct timespec up, now;
	struct utsname u;
	u8 b[24 + 2 * 70];
	u32 n, at = 20;

	sys2(clock_gettime, 7 /* CLOCK_BOOTTIME */, &up);
	sys2(clock_gettime, 0 /* CLOCK_REALTIME */, &now);
	sys1(uname, &u);
	put_u32(b, PROTOCOL_VERSION);
	put_u64(b + 4, up.tv_sec * 1000000000ul + up.tv_nsec);
	put_u64(b + 12, now.tv_sec * 1000000000ul + now.tv_nsec);
	n = strlen(u.nodename);
	put_u16(b + at, n);
	memcpy(b + at + 2, u.nodename, n);
	at += 2 + n;
	n = strlen(u.release);
	put_u16(b + at, n);
	memcpy(b + at + 2, u.release, n);
	frame(c, OUT_OK, b, at + 2 + n);
	c->closing = FLUSHING;
}

static void request(struct conn *c, int type, struct cursor *q)
{
	u8 kind;

	switch (type) {
	case REQ_PING:      ping(c); break;
	case REQ_EXEC:      exec_start(c, q); break;
	case REQ_PUT:       put_start(c, q); break;
	case REQ_GET:       get_start(c, q); break;
	case REQ_LIST:      list_start(c, q); break;
	case REQ_STAT:      stat_start(c, q); break;
	case REQ_MOUNT:     mount_request(c, q); break;
	case REQ_CONFIGURE: configure_request(c, q); break;
	case REQ_SHUTDOWN:
		kind = get_u8(q);
		if (q->bad || kind > SHUTDOWN_HALT) {
			reply_error(c, EINVAL, "malformed shutdown request");
			break;
		}
		shutdown_wanted = 1 + kind;
		reply_ok(c);
		break;
	default:
		reply_error(c, EPROTO, "unknown request");
	}
}

static void got_frame(struct conn *c, int type, u8 *payload, u32 len)
{
	struct cursor q = { payload, payload + len, 0 };

	if (c->closing)
		return;
	if (c->job == JOB_EXEC)
		exec_input(c, type, &q);
	else if (c->job == JOB_PUT)
		put_input(c, type, payload, len);
	else if (c->job == JOB_NONE)
		request(c, type, &q);
	else
		reply_error(c, EPROTO, "unexpected frame");
}

/* parse hands over every whole frame; 0 when the peer broke the protocol. */
static int parse(struct conn *c)
{
	u32 at = 0;

	while (c->in_len - at >= HEADER) {
		struct cursor q = { c->in + at, c->in + c->in_len, 0 };
		u32 type = get_u32(&q), len = get_u32(&q);

		if (len > MAX_PAYLOAD)
			return 0;
		if (c->in_len - at - HEADER < len)
			break;
		got_frame(c, type, c->in + at + HEADER, len);
		at += HEADER + len;
	}
	if (at)
		memmove(c->in, c->in + at, c->in_len - at);
	c->in_len -= at;
	return 1;
}

/* receive reads once; 0 when the connection is over. */
static int receive(struct conn *c)
{
	long r;

	if (c->closing)
		c->in_len = 0;
	r = sys6(recvfrom, c->fd, c->in + c->in_len, sizeof(c->in) - c->in_len, MSG_DONTWAIT_, 0, 0);

	if (r == -EAGAIN || r == -EINTR)
		return 1;
	if (r <= 0)
		return 0;
	if (c->closing)
		return 1;
	c->in_len += r;
	return parse(c);
}

/* flush sends what it can; 0 when the connection is over. After the last frame
 * the host is the one to close: a close with input unread would be a reset, and
 * could cost the host the very answer that explains it. */
static int flush(struct conn *c)
{
	while (c->out_len) {
		long r = sys6(sendto, c->fd, c->out + c->out_at, c->out_len, MSG_NOSIGNAL_ | MSG_DONTWAIT_, 0, 0);

		if (r == -EAGAIN || r == -EINTR)
			return 1;
		if (r <= 0)
			return 0;
		c->out_at += r;
		c->out_len -= r;
	}
	if (c->closing == FLUSHING) {
		sys2(shutdown, c->fd, SHUT_WR_);
		c->closing = DRAINING;
		c->drain_ms = now_ms() + DRAIN_MS;
	}
	return 1;
}

static int pump(struct conn *c)
{
	int more;

	do { /* what was sent made room for more */
		u32 before;

		if (c->job == JOB_EXEC)
			exec_pump(c);
		else if (c->job == JOB_GET)
			get_pump(c);
		else if (c->job == JOB_LIST)
			list_pump(c);
		before = c->out_len;
		if (!flush(c))
			return 0;
		more = before && !c->out_len && c->job != JOB_NONE && c->job != JOB_PUT;
	} while (more);
	return 1;
}

void agent_child(int pid, int status)
{
	u32 i;

	for (i = 0; i < (u32)n_conns; i++)
		if (conns[i]->job == JOB_EXEC && conns[i]->exec.pid == pid)
			exec_reaped(conns[i], status);
	for (i = 0; i < LEN(leftovers); i++)
		if (leftovers[i].pid == pid)
			leftovers[i].pid = 0;
}

static void earlier(int *timeout, u64 at)
{
	u64 now = now_ms();
	int ms = at > now ? (int)(at - now) : 0;

	if (*timeout < 0 || ms < *timeout)
		*timeout = ms;
}

int agent_poll(struct pollfd *p, int max, int *timeout)
{
	int n = 0, i;

	for (i = 0; i < (int)LEN(leftovers); i++)
		if (leftovers[i].pid)
			earlier(timeout, leftovers[i].kill_ms);
	if (listener >= 0 && n_conns < MAX_CONNS)
		p[n++] = (struct pollfd){ listener, POLLIN, 0 };
	for (i = 0; i < n_conns && n + 4 <= max; i++) {
		struct conn *c = conns[i];

		p[n++] = (struct pollfd){ c->fd, POLLIN | (c->out_len ? POLLOUT : 0), 0 };
		if (c->closing == DRAINING)
			earlier(timeout, c->drain_ms);
		if (c->job == JOB_EXEC) {
			n += exec_poll(c, p + n);
			if (c->exec.exited)
				earlier(timeout, c->exec.exit_ms + 250);
		}
	}
	return n;
}

static short ready(struct pollfd *p, int n, int fd)
{
	int i;

	for (i = 0; i < n; i++)
		if (p[i].fd == fd)
			return p[i].revents;
	return 0;
}

static void accept_all(void)
{
	long fd;

	while (n_conns < MAX_CONNS) {
		fd = sys4(accept4, listener, 0, 0, SOCK_NONBLOCK_ | SOCK_CLOEXEC_);
		if (fd < 0)
			return;
		agent_adopt(fd);
	}
}

static void kill_leftovers(void)
{
	u64 now = now_ms();
	u32 i;

	for (i = 0; i < LEN(leftovers); i++)
		if (leftovers[i].pid && leftovers[i].kill_ms <= now) {
			sys2(kill, -leftovers[i].pid, SIG_KILL);
			leftovers[i].pid = 0;
		}
}

void agent_run(struct pollfd *p, int n)
{
	int i;

	kill_leftovers();
	for (i = n_conns - 1; i >= 0; i--) {
		struct conn *c = conns[i];
		int alive = 1;

		if (ready(p, n, c->fd) & ~POLLOUT)
			alive = receive(c);
		if (c->closing == DRAINING && c->drain_ms <= now_ms())
			alive = 0;
		if (!alive || !pump(c))
			drop(i);
	}
	if (listener >= 0 && ready(p, n, listener))
		accept_all();
}

/* agent_flush_all gives the last replies a moment before the machine goes. */
void agent_flush_all(void)
{
	int i;

	for (i = n_conns - 1; i >= 0; i--)
		if (!pump(conns[i]))
			drop(i);
}
