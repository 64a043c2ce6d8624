/* Files to and from the guest. Trees are the host's business: it asks for one
 * file, one directory, one listing at a time. */
#include "agent.h"
#include <linux/stat.h>

enum { PUT_FILE = 0, PUT_DIR = 1, PUT_SYMLINK = 2 };
enum { PUT_SET_OWNER = 1, PUT_MAKE_PARENTS = 2, PUT_SET_TIME = 4 };
#define NS_PER_S 1000000000ul

static long set_times(int dir, const char *path, u64 mtime, int flags)
{
	struct timespec t[2];

	t[0].tv_sec = t[1].tv_sec = mtime / NS_PER_S;
	t[0].tv_nsec = t[1].tv_nsec = mtime % NS_PER_S;
	return sys4(utimensat, dir, path, t, flags);
}

/* ---- put ---- */

static long put_symlink(struct put_job *j, const char *target, u32 flags)
{
	long r = sys2(symlink, target, j->path);

	if (r == -EEXIST) {
		struct statx st;

		r = sys5(statx, AT_FDCWD, j->path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st);
		if (!r && S_ISDIR(st.stx_mode))
			return -EISDIR;
		sys1(unlink, j->path);
		r = sys2(symlink, target, j->path);
	}
	if (!r && (flags & PUT_SET_OWNER))
		r = sys3(lchown, j->path, j->uid, j->gid);
	if (!r && (flags & PUT_SET_TIME))
		r = set_times(AT_FDCWD, j->path, j->mtime, AT_SYMLINK_NOFOLLOW);
	return r;
}

static long put_dir(struct put_job *j, u32 flags)
{
	long r = sys2(mkdir, j->path, 0700);

	if (r == -EEXIST) {
		struct statx st;

		r = sys5(statx, AT_FDCWD, j->path, 0, STATX_TYPE, &st);
		if (!r && !S_ISDIR(st.stx_mode))
			return -ENOTDIR;
	}
	if (!r && (flags & PUT_SET_OWNER))
		r = sys3(chown, j->path, j->uid, j->gid);
	if (!r)
		r = sys2(chmod, j->path, j->mode & 07777);
	return r;
}

/* put_file writes beside the file and renames at the end, so that a transfer
 * that breaks leaves what was there. */
static long put_file(struct put_job *j)
{
	static long serial;
	struct statx st;
	long r = sys5(statx, AT_FDCWD, j->path, 0, STATX_TYPE, &st);

	if (!r && S_ISDIR(st.stx_mode))
		return -EISDIR;
	if (!r && !S_ISREG(st.stx_mode))
		return -EINVAL;
	if (strlen(j->path) + 32 > sizeof(j->temp))
		return -ENAMETOOLONG;
	format(j->temp, sizeof(j->temp), "%s.%d-%d.part", j->path, (long)getpid(), ++serial);
	r = sys3(open, j->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (r < 0)
		return r;
	j->fd = r;
	return 0;
}

static long make_parents(const char *path)
{
	char dir[PATH_MAX];
	char *slash;

	if (strlcpy(dir, path, sizeof(dir)) >= sizeof(dir))
		return -ENAMETOOLONG;
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return 0;
	*slash = 0;
	return make_dirs(dir, 0755);
}

void put_start(struct conn *c, struct cursor *q)
{
	struct put_job *j = &c->put;
	u32 kind = get_u8(q), flags = get_u32(q);
	const char *path, *target;
	long r = 0;

	j->fd = -1;
	j->mode = get_u32(q);
	j->uid = get_u32(q);
	j->gid = get_u32(q);
	j->mtime = get_u64(q);
	path = get_string(q);
	target = get_string(q);
	if (q->bad || kind > PUT_SYMLINK || !*path) {
		reply_error(c, EINVAL, "malformed put request");
		return;
	}
	if (strlcpy(j->path, path, sizeof(j->path)) >= sizeof(j->path)) {
		reply_error(c, ENAMETOOLONG, path);
		return;
	}
	j->set_owner = flags;
	if (flags & PUT_MAKE_PARENTS)
		r = make_parents(j->path);
	if (!r)
		r = kind == PUT_FILE ? put_file(j) : kind == PUT_DIR ? put_dir(j, flags)
		                                  : put_symlink(j, target, flags);
	if (r)
		reply_error(c, r, j->path);
	else if (kind == PUT_FILE)
		c->job = JOB_PUT;
	else
		reply_ok(c);
}

static long put_finish(struct put_job *j)
{
	long r = 0;

	if (j->set_owner & PUT_SET_OWNER)
		r = sys3(fchown, j->fd, j->uid, j->gid);
	if (!r)
		r = sys2(fchmod, j->fd, j->mode & 07777);
	if (!r && (j->set_owner & PUT_SET_TIME))
		r = set_times(j->fd, 0, j->mtime, 0);
	if (!r)
		r = sys1(close, j->fd);
	if (!r) {
		j->fd = -1;
		r = sys2(rename, j->temp, j->path);
		if (r)
			sys1(unlink, j->temp);
	}
	return r;
}

void put_abandon(struct conn *c)
{
	if (c->put.fd < 0)
		return;
	sys1(close, c->put.fd);
	sys1(unlink, c->put.temp);
	c->put.fd = -1;
}

void put_input(struct conn *c, int type, const u8 *p, u32 n)
{
	struct put_job *j = &c->put;
	long r = -EPROTO;

	if (type == IN_DATA) {
		for (r = 0; n && r >= 0; p += r, n -= r) {
			r = sys3(write, j->fd, p, n);
			if (r <= 0)
				break;
		}
		if (n == 0)
			return;
		r = r ? r : -ENOSPC;
	} else if (type == IN_END) {
		r = put_finish(j);
	}
	if (r) {
		reply_error(c, r, j->path);
		put_abandon(c);
	} else {
		reply_ok(c);
	}
	c->job = JOB_NONE;
}

/* ---- stat, list, get ---- */

/* send_entry describes one file: mode, uid, gid, size, mtime, name, and for a
 * symbolic link its target. */
static long send_entry(struct conn *c, int dir, const char *path, const char *name, int follow)
{
	static u8 b[40 + 2 * (PATH_MAX + 2)];
	struct statx st;
	u32 n = strlen(name);
	long r = sys5(statx, dir, path, (follow ? 0 : AT_SYMLINK_NOFOLLOW) | (*path ? 0 : AT_EMPTY_PATH),
	              STATX_BASIC_STATS, &st), t = 0;

	if (r)
		return r;
	put_u32(b, st.stx_mode);
	put_u32(b + 4, st.stx_uid);
	put_u32(b + 8, st.stx_gid);
	put_u64(b + 12, st.stx_size);
	put_u64(b + 20, st.stx_mtime.tv_sec * NS_PER_S + st.stx_mtime.tv_nsec);
	put_u16(b + 28, n);
	memcpy(b + 30, name, n);
	if (S_ISLNK(st.stx_mode)) {
		t = sys4(readlinkat, dir, path, b + 32 + n, PATH_MAX);
		if (t < 0)
			return t;
	}
	put_u16(b + 30 + n, t);
	frame(c, OUT_ENTRY, b, 32 + n + t);
	return 0;
}

static const char *path_request(struct conn *c, struct cursor *q)
{
	const char *path = get_string(q);

	if (!q->bad && *path && strlen(path) < PATH_MAX)
		return path;
	reply_error(c, EINVAL, "malformed path");
	return 0;
}

void stat_start(struct conn *c, struct cursor *q)
{
	int follow = get_u8(q);
	const char *path = path_request(c, q);
	long r;

	if (!path)
		return;
	r = send_entry(c, AT_FDCWD, path, path, follow);
	if (r)
		reply_error(c, r, path);
	c->closing = FLUSHING;
}

void get_start(struct conn *c, struct cursor *q)
{
	const char *path = path_request(c, q);
	struct statx st;
	long fd, r;

	if (!path)
		return;
	/* Non-blocking, so that opening a FIFO does not stop the agent. */
	fd = sys3(open, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
	if (fd < 0) {
		reply_error(c, fd, path);
		return;
	}
	r = sys5(statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &st);
	if (!r && !S_ISREG(st.stx_mode))
		r = S_ISDIR(st.stx_mode) ? -EISDIR : -EINVAL;
	if (!r)
		r = send_entry(c, fd, "", path, 1);
	if (r) {
		sys1(close, fd);
		reply_error(c, r, path);
		return;
	}
	c->get_fd = fd;
	c->job = JOB_GET;
}

void get_pump(struct conn *c)
{
	while (c->job == JOB_GET) {
		u32 n = room(c);
		u8 *p = c->out + c->out_at + c->out_len;
		long r;

		if (n < 16384)
			return;
		if (n > MAX_PAYLOAD)
			n = MAX_PAYLOAD;
		r = sys3(read, c->get_fd, p + HEADER, n);
		if (r > 0) {
			frame(c, OUT_DATA, p + HEADER, r);
			continue;
		}
		sys1(close, c->get_fd);
		c->get_fd = -1;
		c->job = JOB_NONE;
		if (r < 0) {
			reply_error(c, r, "read");
			return;
		}
		frame(c, OUT_END, "", 0);
		c->closing = FLUSHING;
	}
}

void list_start(struct conn *c, struct cursor *q)
{
	const char *path = path_request(c, q);
	long fd;

	if (!path)
		return;
	fd = sys3(open, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0) {
		reply_error(c, fd, path);
		return;
	}
	c->list.fd = fd;
	c->list.at = c->list.len = 0;
	c->job = JOB_LIST;
}

static void list_end(struct conn *c, long err)
{
	sys1(close, c->list.fd);
	c->list.fd = -1;
	c->job = JOB_NONE;
	if (err) {
		reply_error(c, err, "read directory");
		return;
	}
	frame(c, OUT_END, "", 0);
	c->closing = FLUSHING;
}

void list_pump(struct conn *c)
{
	struct list_job *l = &c->list;

	while (c->job == JOB_LIST && room(c) > 3 * PATH_MAX) {
		struct linux_dirent64 *d;
		long r;

		if (l->at >= l->len) {
			l->at = 0;
			l->len = sys3(getdents64, l->fd, l->dents, sizeof(l->dents));
			if (l->len <= 0) {
				list_end(c, l->len);
				return;
			}
		}
		d = (void *)(l->dents + l->at);
		l->at += d->d_reclen;
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		r = send_entry(c, l->fd, d->d_name, d->d_name, 0);
		if (r && r != -ENOENT) /* gone since it was read: no error */
			list_end(c, r);
	}
}
