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
# EROFS maps only files that are whole blocks: the rest of others is packed
# beside their inodes.
truncate -s %4096 "$tree/init" "$tree/bin/bb"
# The image's first 4 KiB are its own; then comes the first file of the first
# folder. With this one in front, bb begins at 2 MiB, and its segments can be
# mapped by huge pages (see userland/align).
truncate -s $((2097152 - 4096)) "$tree/bin/.align"
for c in true false echo cat sleep sync pwd env uname stty poweroff reboot halt; do ln -s ../init "$tree/bin/$c"; done
ln -s ../init "$tree/bin/init"
for c in sh $("$here/userland/commands.sh" | sed 's|.*/||'); do
	test -e "$tree/bin/$c" || ln -s bb "$tree/bin/$c"
done

# -T0: one time stamp for all; a fixed UUID; no compression, so that every file
# is contiguous in the image and can be mapped from it.
mkfs.erofs -T0 -U76697472-696e-6520-726f-6f7400000001 --all-root "$out" "$tree" >/dev/null
at=$(dump.erofs --path=/bin/bb -e "$out" 2>/dev/null | sed -n 's/^ *0:.*: *\([0-9]*\)\.\..*/\1/p')
test "${at:-1}" = 2097152 || { echo "$out: bb is at ${at:-?}, want 2097152: mkfs.erofs lays files out in another order" >&2; exit 1; }
# Persistent memory comes in units of 2 MiB: the VMM maps the file as it is.
size=$(stat -c %s "$out")
truncate -s $(( (size + 2097151) / 2097152 * 2097152 )) "$out"
