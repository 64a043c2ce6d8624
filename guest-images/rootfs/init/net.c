/* Network interfaces by ioctl: a DHCP client would cost more than all the rest
 * of init, and the VMM knows the address anyway. */
#include "init.h"
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/in.h>
#include <linux/route.h>
#include <linux/sockios.h>

static int control = -1;

static long open_control(void)
{
	if (control < 0)
		control = sys3(socket, 2 /* AF_INET */, 2 /* SOCK_DGRAM */ | 02000000, 0);
	return control;
}

/* parse_ip reads a dotted quad in network order and says where it ended. */
static const char *parse_ip(const char *s, u32 *ip)
{
	u8 *b = (u8 *)ip;
	int i;

	for (i = 0; i < 4; i++) {
		u32 v = 0, digits = 0;

		for (; *s >= '0' && *s <= '9'; s++, digits++)
			v = v * 10 + *s - '0';
		if (!digits || digits > 3 || v > 255 || (i < 3 && *s++ != '.'))
			return 0;
		b[i] = v;
	}
	return s;
}

static void set_addr(struct sockaddr *a, u32 ip)
{
	struct sockaddr_in in = { .sin_family = 2, .sin_addr = { ip } };

	memcpy(a, &in, sizeof(in));
}

static long set_flags(struct ifreq *r, int up)
{
	long e = sys3(ioctl, control, SIOCGIFFLAGS, r);

	if (e)
		return e;
	if (up)
		r->ifr_flags |= IFF_UP;
	else
		r->ifr_flags &= ~IFF_UP;
	return sys3(ioctl, control, SIOCSIFFLAGS, r);
}

static long set_mac(struct ifreq *r, const u8 *mac)
{
	long e = set_flags(r, 0);

	if (e)
		return e;
	r->ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(r->ifr_hwaddr.sa_data, mac, 6);
	return sys3(ioctl, control, SIOCSIFHWADDR, r);
}

static long set_gateway(const char *name, const char *gw)
{
	struct rtentry rt = { .rt_flags = RTF_UP | RTF_GATEWAY };
	u32 ip;
	long e;

	if (!parse_ip(gw, &ip))
		return -EINVAL;
	set_addr(&rt.rt_dst, 0);
	set_addr(&rt.rt_genmask, 0);
	set_addr(&rt.rt_gateway, ip);
	rt.rt_dev = (char *)name;
	e = sys3(ioctl, control, SIOCADDRT, &rt);
	return e == -EEXIST ? 0 : e;
}

long set_interface(const char *name, const u8 *mac, const char *cidr, const char *gw)
{
	struct ifreq r;
	u32 ip = 0, mask = 0xffffffff;
	long e = open_control();

	if (e < 0)
		return e;
	memset(&r, 0, sizeof(r));
	if (strlcpy(r.ifr_name, name, IFNAMSIZ) >= IFNAMSIZ)
		return -EINVAL;
	if (mac && (e = set_mac(&r, mac)))
		return e;
	if (*cidr) {
		const char *s = parse_ip(cidr, &ip);
		u32 bits = s && *s == '/' ? (u32)atoi(s + 1) : 24;

		if (!s || bits > 32)
			return -EINVAL;
		mask = bits ? __builtin_bswap32(~0u << (32 - bits)) : 0;
		set_addr(&r.ifr_addr, ip);
		if ((e = sys3(ioctl, control, SIOCSIFADDR, &r)))
			return e;
		set_addr(&r.ifr_netmask, mask);
		if ((e = sys3(ioctl, control, SIOCSIFNETMASK, &r)))
			return e;
	}
	if ((e = set_flags(&r, 1)))
		return e;
	return *gw ? set_gateway(name, gw) : 0;
}

long set_dns(char *list)
{
	char text[512];
	u32 n = 0;
	long r;

	while (list && *list) {
		char *comma = strchr(list, ',');

		if (comma)
			*comma++ = 0;
		n += format(text + n, sizeof(text) - n, "nameserver %s\n", list);
		list = comma;
	}
	text[n] = 0;
	r = write_file("/run/resolv.conf", O_CREAT | O_TRUNC, text);
	return r < 0 ? r : 0;
}

/* boot_network applies vitrine.ip=[IFACE:]ADDR/BITS,… The gateway belongs to
 * the first. */
void boot_network(struct options *o)
{
	char *item = o->ip, *gw = o->gw ? o->gw : "";
	long e = set_interface("lo", 0, "127.0.0.1/8", "");

	if (e)
		say("loopback", "", e);
	while (item && *item) {
		char *comma = strchr(item, ','), *colon, *name = "eth0";

		if (comma)
			*comma++ = 0;
		colon = strchr(item, ':');
		if (colon) {
			*colon = 0;
			name = item;
			item = colon + 1;
		}
		e = set_interface(name, 0, item, gw);
		if (e)
			say("network interface ", name, e);
		gw = "";
		item = comma;
	}
	if (o->dns)
		set_dns(o->dns);
	if (o->net && !strcmp(o->net, "dhcp")) {
		char *argv[] = { "dhclient", "-ipv6=false", "eth0", 0 }, *env[] = { "PATH=/bin", 0 };
		struct spawn s = { "/bin/dhclient", argv, env, 0, 0 };

		if ((e = spawn(&s)) < 0)
			say("dhclient", "", e);
	}
}
