/* The agent: docs/agent.md describes the protocol. */
#ifndef AGENT_H
#define AGENT_H

#include "base.h"

enum {
	AGENT_PORT = 1024,
	PROTOCOL_VERSION = 1,
	HEADER = 8,
	MAX_PAYLOAD = 65536,
	STDIN_WINDOW = 65536,
	MAX_CONNS = 64,
	OUT_SIZE = 2 * (MAX_PAYLOAD + HEADER),
};

enum frame_type {
	/* Requests: the first frame of a connection. */
	REQ_PING = 0x01, REQ_EXEC = 0x02, REQ_PUT = 0x03, REQ_GET = 0x04,
	REQ_LIST = 0x05, REQ_STAT = 0x06, REQ_MOUNT = 0x07, REQ_CONFIGURE = 0x08,
	REQ_SHUTDOWN = 0x09,
	/* What follows a request. */
	IN_STDIN = 0x20, IN_STDIN_END = 0x21, IN_SIGNAL = 0x22, IN_RESIZE = 0x23,
	IN_DATA = 0x24, IN_END = 0x25,
	/* Replies. */
	OUT_OK = 0x40, OUT_ERROR = 0x41, OUT_STARTED = 0x42, OUT_STDOUT = 0x43,
	OUT_STDERR = 0x44, OUT_EXIT = 0x45, OUT_WINDOW = 0x46, OUT_ENTRY = 0x47,
	OUT_DATA = 0x48, OUT_END = 0x49,
};

/* A job is what a connection does after its request. */
enum job { JOB_NONE, JOB_EXEC, JOB_PUT, JOB_GET, JOB_LIST };

struct exec_job {
	int pid;              /* 0 once reaped */
	int status, exited;
	u64 exit_ms;          /* when it was reaped; for a terminal's last words */
	int in, out, err;     /* our ends, -1 when closed; a terminal has in == out */
	int tty;
	int in_ended;         /* the host said that nothing more follows */
	int last_newline;     /* a terminal's input so far ends a line */
	u32 in_head, in_len;  /* stdin: a ring in in_ring */
	u32 consumed;         /* bytes to announce in the next window frame */
	u8 in_ring[STDIN_WINDOW];
};

struct put_job {
	int fd;
	u32 mode, uid, gid;
	int set_owner;
	u64 mtime;
	char temp[PATH_MAX], path[PATH_MAX];
};

struct list_job {
	int fd, at, len, ended;
	char dents[4096];
};

struct conn {
	int fd, used;
	enum { OPEN, FLUSHING, DRAINING } closing; /* see flush in agent.c */
	u64 drain_ms;         /* when to stop draining */
	enum job job;
	u32 in_len;
	u32 out_at, out_len;  /* out[out_at .. out_at+out_len) is unsent */
	u64 kill_ms;
	struct exec_job exec;
	struct put_job put;
	struct list_job list;
	int get_fd;
	u8 in[HEADER + MAX_PAYLOAD];
	u8 out[OUT_SIZE];
};

/* A cursor over a request's payload. Reading past the end, or a string that
 * holds a NUL, sets bad; everything read after that is zero. */
struct cursor { u8 *p, *end; int bad; };
u8  get_u8(struct cursor *c);
u16 get_u16(struct cursor *c);
u32 get_u32(struct cursor *c);
u64 get_u64(struct cursor *c);
/* get_string returns a terminated string inside the payload: it overwrites
 * the length that precedes it with the text moved back by one. */
char *get_string(struct cursor *c);
struct span get_bytes(struct cursor *c);

void put_u16(u8 *p, u16 v);
void put_u32(u8 *p, u32 v);
void put_u64(u8 *p, u64 v);

/* room says how large a payload still fits; frame appends one (the caller has
 * asked for room, except for replies that end a request, for which room is
 * always kept). */
u32  room(struct conn *c);
void frame(struct conn *c, int type, const void *payload, u32 len);
void reply_ok(struct conn *c);
void reply_error(struct conn *c, long err, const char *what);

/* Each part, in its file. */
void exec_start(struct conn *c, struct cursor *q);
void exec_input(struct conn *c, int type, struct cursor *q);
void exec_pump(struct conn *c);
void exec_reaped(struct conn *c, int status);
void exec_abandon(struct conn *c);
int  exec_poll(struct conn *c, struct pollfd *p);

void put_start(struct conn *c, struct cursor *q);
void put_input(struct conn *c, int type, const u8 *p, u32 n);
void put_abandon(struct conn *c);
void get_start(struct conn *c, struct cursor *q);
void get_pump(struct conn *c);
void list_start(struct conn *c, struct cursor *q);
void list_pump(struct conn *c);
void stat_start(struct conn *c, struct cursor *q);

void mount_request(struct conn *c, struct cursor *q);
void configure_request(struct conn *c, struct cursor *q);

/* agent_listen opens the vsock listener; -errno when there is no such device. */
long agent_listen(void);
void agent_adopt(int fd); /* for tests: serve this connection */
void agent_child(int pid, int status);
int  agent_poll(struct pollfd *p, int max, int *timeout_ms);
void agent_run(struct pollfd *p, int n);
void agent_flush_all(void);

#endif
