// firstrun PROGRAM ARGUMENT…: prints how many nanoseconds pass from the exec of
// the program to its first KVM_RUN, and kills it then. A seccomp filter hands
// that one ioctl to this process (seccomp_unotify(2)), and lets all else pass at
// the cost of a few instructions, so the same is measured for every VMM.
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct message {
	struct timespec now;
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

// pass sends the descriptor and the time through a socket.
static void pass(int socket, int fd)
{
	struct message m;
	char control[CMSG_SPACE(sizeof fd)] = { 0 };
	struct iovec v = { &m, sizeof m };
	struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);

	c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	clock_gettime(CLOCK_MONOTONIC, &m.now);
	if (sendmsg(socket, &h, 0) < 0)
		fail("sendmsg");
}

static int take(int socket, struct timespec *began)
{
	struct message m;
	int fd;
	char control[CMSG_SPACE(sizeof fd)];
	struct iovec v = { &m, sizeof m };
	struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };

	if (recvmsg(socket, &h, MSG_CMSG_CLOEXEC) != sizeof m || !CMSG_FIRSTHDR(&h))
		fail("recvmsg");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof fd);
	*began = m.now;
	return fd;
}

static void child(int socket, char **argv)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, KVM_RUN, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };
	int fd;

	setpgid(0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		fail("no_new_privs");
	fd = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (fd < 0)
		fail("seccomp");
	pass(socket, fd);
	close(fd);
	close(socket);
	execvp(argv[0], argv);
	fail(argv[0]);
}

int main(int argc, char **argv)
{
	int pair[2], fd, n;
	struct timespec a, b;
	struct pollfd p;
	pid_t pid;

	if (argc < 2 || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair))
		fail("usage: firstrun PROGRAM ARGUMENT...");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (!pid)
		child(pair[1], argv + 1);
	fd = take(pair[0], &a);
	p = (struct pollfd){ .fd = fd, .events = POLLIN };
	n = poll(&p, 1, 60000);
	clock_gettime(CLOCK_MONOTONIC, &b);
	kill(-pid, SIGKILL);
	waitpid(pid, 0, 0);
	if (n != 1 || !(p.revents & POLLIN)) {
		fprintf(stderr, "no KVM_RUN\n");
		return 1;
	}
	printf("%lld\n", (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec);
	return 0;
}
