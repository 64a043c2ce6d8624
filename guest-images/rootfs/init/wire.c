#include "agent.h"

static u8 *take(struct cursor *c, u32 n)
{
	u8 *p = c->p;

	if (c->bad || (u64)(c->end - c->p) < n) {
		c->bad = 1;
		return 0;
	}
	c->p += n;
	return p;
}

u8 get_u8(struct cursor *c)
{
	u8 *p = take(c, 1);

	return p ? p[0] : 0;
}

u16 get_u16(struct cursor *c)
{
	u8 *p = take(c, 2);

	return p ? p[0] | p[1] << 8 : 0;
}

u32 get_u32(struct cursor *c)
{
	u32 lo = get_u16(c);

	return lo | (u32)get_u16(c) << 16;
}

u64 get_u64(struct cursor *c)
{
	u64 lo = get_u32(c);

	return lo | (u64)get_u32(c) << 32;
}

struct span get_bytes(struct cursor *c)
{
	struct span s;

	s.n = get_u16(c);
	s.p = take(c, s.n);
	if (!s.p)
		s.n = 0;
	return s;
}

char *get_string(struct cursor *c)
{
	struct span s = get_bytes(c);
	char *text = (char *)s.p - 1;
	u32 i;

	for (i = 0; i < s.n; i++)
		c->bad |= s.p[i] == 0;
	if (c->bad)
		return "";
	memmove(text, s.p, s.n);
	text[s.n] = 0;
	return text;
}

void put_u16(u8 *p, u16 v)
{
	p[0] = v;
	p[1] = v >> 8;
}

void put_u32(u8 *p, u32 v)
{
	put_u16(p, v);
	put_u16(p + 2, v >> 16);
}

void put_u64(u8 *p, u64 v)
{
	put_u32(p, v);
	put_u32(p + 4, v >> 32);
}

/* What every connection keeps free for the frame that ends its request. */
#define RESERVE 512

u32 room(struct conn *c)
{
	u32 left;

	if (c->out_at && (!c->out_len || c->out_at > OUT_SIZE / 2)) {
		memmove(c->out, c->out + c->out_at, c->out_len);
		c->out_at = 0;
	}
	left = OUT_SIZE - c->out_at - c->out_len;
	return left > RESERVE + HEADER ? left - RESERVE - HEADER : 0;
}

void frame(struct conn *c, int type, const void *payload, u32 len)
{
	u8 *p;

	if (OUT_SIZE - c->out_at - c->out_len < HEADER + len) {
		memmove(c->out, c->out + c->out_at, c->out_len);
		c->out_at = 0;
	}
	if (OUT_SIZE - c->out_len < HEADER + len) {
		c->closing = FLUSHING; /* only a peer that never reads comes here */
		return;
	}
	p = c->out + c->out_at + c->out_len;
	put_u32(p, type);
	put_u32(p + 4, len);
	memmove(p + HEADER, payload, len);
	c->out_len += HEADER + len;
}

void reply_ok(struct conn *c)
{
	frame(c, OUT_OK, "", 0);
	c->closing = FLUSHING;
}

void reply_error(struct conn *c, long err, const char *what)
{
	u8 buf[260];
	u32 n = strlen(what);

	if (n > 256)
		n = 256;
	put_u32(buf, err < 0 ? -err : err);
	memcpy(buf + 4, what, n);
	frame(c, OUT_ERROR, buf, 4 + n);
	c->closing = FLUSHING;
}
