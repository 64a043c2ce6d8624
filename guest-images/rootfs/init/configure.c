/* The agent's requests that change the machine: shares, and what a restored or
 * forked guest must not have in common with its twin. */
#include "agent.h"
#include "init.h"
#include <linux/random.h>

void mount_request(struct conn *c, struct cursor *q)
{
	const char *type = get_string(q), *source = get_string(q), *target = get_string(q);
	u64 flags = get_u64(q);
	const char *data = get_string(q);
	long r;

	if (q->bad || !*target) {
		reply_error(c, EINVAL, "malformed mount request");
		return;
	}
	r = mount_share(type, source, target, flags, data);
	if (r)
		reply_error(c, r, target);
	else
		reply_ok(c);
}

enum { CFG_CLOCK = 1, CFG_ENTROPY = 2, CFG_HOSTNAME = 3, CFG_INTERFACE = 4, CFG_DNS = 5 };

static long set_clock(struct cursor *q)
{
	u64 ns = get_u64(q);
	struct timespec t = { ns / 1000000000ul, ns % 1000000000ul };

	return q->bad ? -EINVAL : sys2(clock_settime, 0, &t);
}

/* add_entropy credits the bytes and reseeds at once: two guests from one
 * snapshot must not draw the same numbers. */
static long add_entropy(struct cursor *q)
{
	struct { int bits, size; u8 bytes[512]; } e;
	struct span s = get_bytes(q);
	long fd, r;

	if (q->bad || s.n > sizeof(e.bytes))
		return -EINVAL;
	e.bits = s.n * 8;
	e.size = s.n;
	memcpy(e.bytes, s.p, s.n);
	fd = sys3(open, "/dev/random", O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	r = sys3(ioctl, fd, RNDADDENTROPY, &e);
	if (!r)
		r = sys3(ioctl, fd, RNDRESEEDCRNG, 0);
	sys1(close, fd);
	return r;
}

static long configure_interface(struct cursor *q)
{
	const char *name = get_string(q);
	struct span mac = get_bytes(q);
	const char *cidr = get_string(q), *gw = get_string(q);

	if (q->bad || (mac.n != 0 && mac.n != 6))
		return -EINVAL;
	return set_interface(name, mac.n ? mac.p : 0, cidr, gw);
}

void configure_request(struct conn *c, struct cursor *q)
{
	static const char *what[] = { "", "clock", "entropy", "hostname", "interface", "dns" };
	char *text;

	while (q->p < q->end && !q->bad) {
		u32 kind = get_u8(q);
		long r = -EINVAL;

		switch (kind) {
		case CFG_CLOCK:     r = set_clock(q); break;
		case CFG_ENTROPY:   r = add_entropy(q); break;
		case CFG_INTERFACE: r = configure_interface(q); break;
		case CFG_HOSTNAME:
			text = get_string(q);
			r = q->bad ? -EINVAL : sys2(sethostname, text, strlen(text));
			break;
		case CFG_DNS:
			text = get_string(q);
			r = q->bad ? -EINVAL : set_dns(text);
			break;
		}
		if (r) {
			reply_error(c, r, kind < LEN(what) ? what[kind] : "unknown setting");
			return;
		}
	}
	reply_ok(c);
}
