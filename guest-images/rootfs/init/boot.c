/* From the kernel's hand-over to a usable system, in as few system calls as
 * that takes. */
#include "init.h"
#include <linux/magic.h>

void parse_options(char *line, struct options *o)
{
	static const char *const names[] = { "console", "exit", "ip", "gw", "dns", "hostname", "net", "mount", "root" };
	char **fields = (char **)o;
	char *word, *next;
	u32 i;

	for (word = line; word && *word; word = next) {
		for (next = word; *next && *next != ' ' && *next != '\n'; next++)
			;
		if (*next)
			*next++ = 0;
		if (strncmp(word, "vitrine.", 8))
			continue;
		for (i = 0; i < LEN(names); i++) {
			u32 n = strlen(names[i]);

			if (!strncmp(word + 8, names[i], n) && word[8 + n] == '=')
				fields[i] = word + 9 + n;
		}
	}
}

static void mnt(const char *type, const char *target, u64 flags, const char *data)
{
	long r = sys5(mount, type, target, type, flags, data);

	if (r && r != -EBUSY)
		say("mount ", target, r);
}

static int root_is_read_only(void)
{
	struct { long type, bsize; u64 blocks, bfree, bavail, files, ffree; int fsid[2]; long namelen, frsize, flags, spare[4]; } s;

	return sys2(statfs, "/", &s) == 0 && (s.flags & 1 /* ST_RDONLY */);
}

/* make_writable lays a tmpfs over the read-only root. The root stays mapped
 * from the host's page cache; only what changes takes the guest's memory. */
static void make_writable(void)
{
	long r = sys5(mount, "overlay", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");

	if (!r)
		r = sys2(mkdir, "/run/upper", 0755);
	if (!r)
		r = sys2(mkdir, "/run/work", 0755);
	if (!r)
		r = sys5(mount, "overlay", "/mnt", "overlay", 0, "lowerdir=/,upperdir=/run/upper,workdir=/run/work");
	if (!r)
		r = sys5(mount, "/dev", "/mnt/dev", 0, MS_MOVE, 0);
	if (!r)
		r = sys5(mount, "/proc", "/mnt/proc", 0, MS_MOVE, 0);
	if (!r)
		r = sys1(chdir, "/mnt");
	if (!r)
		r = sys5(mount, ".", "/", 0, MS_MOVE, 0);
	if (!r)
		r = sys1(chroot, ".");
	if (r)
		say("writable root", "", r);
	sys1(chdir, "/");
}

void boot_mounts(struct options *o)
{
	static char line[4096]; /* the options point into it */
	int stay_read_only;

	mnt("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	if (read_file("/proc/cmdline", line, sizeof(line)) > 0)
		parse_options(line, o);
	stay_read_only = o->root && !strcmp(o->root, "ro");
	if (root_is_read_only() && !stay_read_only)
		make_writable();
	if (sys2(access, "/dev/null", 0)) /* an initramfs: the kernel did not */
		mnt("devtmpfs", "/dev", MS_NOSUID, 0);
	sys2(mkdir, "/dev/pts", 0755);
	mnt("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666");
	mnt("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	mnt("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755");
	if (stay_read_only)
		mnt("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
	if (o->hostname)
		sys2(sethostname, o->hostname, strlen(o->hostname));
	else
		sys2(sethostname, "vitrine", 7);
}

long mount_share(const char *type, const char *source, const char *target, u64 flags, const char *data)
{
	long r = make_dirs(target, 0755);

	if (r)
		return r;
	if (!strcmp(type, "9p") && !*data)
		data = "trans=virtio,version=9p2000.L,msize=131072,cache=none";
	return sys5(mount, source, target, type, flags, data);
}

/* boot_shares mounts vitrine.mount=TYPE:TAG:PATH[:ro],… */
void boot_shares(struct options *o)
{
	char *item, *next;

	for (item = o->mount; item && *item; item = next) {
		char *part[4] = { item, "", "", "" };
		u32 n = 1;
		long r;

		next = strchr(item, ',');
		if (next)
			*next++ = 0;
		for (; *item && n < LEN(part); item++)
			if (*item == ':') {
				*item = 0;
				part[n++] = item + 1;
			}
		r = mount_share(part[0], part[1], part[2], strcmp(part[3], "ro") ? 0 : MS_RDONLY, "");
		if (r)
			say("mount ", part[2], r);
	}
}
