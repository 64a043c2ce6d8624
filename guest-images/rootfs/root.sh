#!/bin/sh
# root.sh INIT BB OUT: make the root image from init and the userland binary.
set -eu
init=$1 bb=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
umask 022

for d in bin dev etc mnt proc root run sys tmp usr usr/local usr/local/bin var home; do mkdir "$tree/$d"; done
chmod 1777 "$tree/tmp"
chmod 700 "$tree/root"
ln -s bin "$tree/sbin"
ln -s ../bin "$tree/usr/bin"
ln -s ../bin "$tree/usr/sbin"
ln -s ../run "$tree/var/run"
ln -s ../tmp "$tree/var/tmp"
ln -s /proc/mounts "$tree/etc/mtab"
ln -s /run/resolv.conf "$tree/etc/resolv.conf"
cp "$here"/etc/* "$tree/etc/"

install -m 755 "$init" "$tree/init"
install -m 755 "$bb" "$tree/bin/bb"
for c in true false echo cat sleep sync pwd env uname stty poweroff reboot halt; do ln -s ../init "$tree/bin/$c"; done
ln -s ../init "$tree/bin/init"
for c in sh $("$here/userland/commands.sh" | sed 's|.*/||'); do
	test -e "$tree/bin/$c" || ln -s bb "$tree/bin/$c"
done

# -T0: one time stamp for all; a fixed UUID; no compression, so that every file
# is contiguous in the image and can be mapped from it.
mkfs.erofs -T0 -U76697472-696e-6520-726f-6f7400000001 --all-root "$out" "$tree" >/dev/null
# Persistent memory comes in units of 2 MiB: the VMM maps the file as it is.
size=$(stat -c %s "$out")
truncate -s $(( (size + 2097151) / 2097152 * 2097152 )) "$out"
