/* What PID 1 does besides the agent. */
#ifndef INIT_H
#define INIT_H

#include "base.h"

enum { SHUTDOWN_POWEROFF = 0, SHUTDOWN_REBOOT = 1, SHUTDOWN_HALT = 2 };

/* 0, or 1 + one of the above. */
extern int shutdown_wanted;

/* Debug port of the VMM: docs/devices.md. */
enum { PORT = 0x510, PORT_USER_SPACE = 0x01, PORT_AGENT_READY = 0x02,
       PORT_REBOOT = 0x10, PORT_POWER_OFF = 0x11, PORT_PRESENT = 'V' };
void port_write(u8 value);
u8   port_read(void);

/* The words of the kernel's command line that begin with "vitrine.". */
struct options {
	char *console, *exit, *ip, *gw, *dns, *hostname, *net, *mount, *root;
};
void parse_options(char *cmdline, struct options *o);

void boot_mounts(struct options *o);
void boot_shares(struct options *o);
long mount_share(const char *type, const char *source, const char *target, u64 flags, const char *data);
void boot_network(struct options *o);
long set_interface(const char *name, const u8 *mac, const char *cidr, const char *gw);
long set_dns(char *list);

/* machine_stop ends the machine at once; shutdown_now in order. */
void machine_stop(int kind) __attribute__((noreturn));
void shutdown_now(int kind) __attribute__((noreturn));

int applet(const char *name, int argc, char **argv, char **env);
int init_main(void);
int agent_test_main(int fd);

#endif
