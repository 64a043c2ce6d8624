#!/bin/sh
# Builds the default guest: two kernels and a root file system.
#
#   guest-images/build.sh [kernel-lean] [kernel-full] [rootfs]   (default: all)
#
# Needs: gcc, make, flex, bison, bc, libelf-dev, zstd, xz-utils, erofs-utils, Go,
# and apt-get for the kernel's source (or VITRINE_KERNEL_SOURCE=FILE, the tarball).
# VITRINE_BUILD: where to work (default .cache/guest-images).
# VITRINE_OUT: where the results go (default guest-images/images).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${VITRINE_BUILD:-$here/../.cache/guest-images}
out=${VITRINE_OUT:-$here/images}
jobs=${JOBS:-$(nproc)}
mkdir -p "$work" "$out"
work=$(cd "$work" && pwd)
out=$(cd "$out" && pwd)

# Whatever gets into a binary and is not source is fixed here.
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=0
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
export KBUILD_BUILD_USER=vitrine KBUILD_BUILD_HOST=vitrine KBUILD_BUILD_VERSION=1
unset KCFLAGS KAFLAGS CFLAGS LDFLAGS GOFLAGS || true

setting() { sed -n "s/^$1=//p" "$here/kernel/source"; }

# fetch_source leaves the unpacked kernel source in $work/linux.
fetch_source() {
	test -e "$work/linux/.unpacked" && return
	tarball=${VITRINE_KERNEL_SOURCE:-}
	if test -z "$tarball"; then
		rm -rf "$work/deb"
		mkdir -p "$work/deb"
		(cd "$work/deb" && apt-get download "$(setting package)=$(setting version)" && dpkg-deb -x ./*.deb .) || {
			echo "apt-get cannot get $(setting package) $(setting version): run apt-get update, or add Debian's backports or security archive" >&2
			exit 1
		}
		tarball=$work/deb/usr/src/$(setting tarball)
	fi
	echo "$(setting sha256)  $tarball" | sha256sum -c --quiet -
	rm -rf "$work/linux"
	mkdir "$work/linux"
	tar -C "$work/linux" --strip-components=1 -xf "$tarball"
	touch "$work/linux/.unpacked"
}

# check_config CONFIG FRAGMENT…: every option asked for must have come out so.
check_config() {
	config=$1
	shift
	cat "$@" | sed -n 's/^\(CONFIG_[A-Z0-9_]*\)=\(.*\)/\1 \2/p; s/^# \(CONFIG_[A-Z0-9_]*\) is not set/\1 n/p' |
		awk '{ k = $1; sub(/^[^ ]* /, ""); v[k] = $0 } END { for (k in v) print k "=" v[k] }' | sort |
		while IFS= read -r line; do
			case $line in
			*=n) ! grep -q "^${line%n}" "$config" ;;
			*) grep -qxF "$line" "$config" ;;
			esac || echo "$line"
		done >"$config.unmet"
	test ! -s "$config.unmet" || {
		echo "the kernel's configuration did not take:" >&2
		cat "$config.unmet" >&2
		exit 1
	}
}

kmake() { make -s -C "$work/linux" O="$work/$1" ARCH=x86 "KCFLAGS=-ffile-prefix-map=$work=/build" "$2" -j"$jobs"; }

# build_kernel NAME FRAGMENT…
build_kernel() {
	name=$1
	shift
	mkdir -p "$work/$name"
	(cd "$here/kernel" && cat "$@") >"$work/$name.fragment"
	make -s -C "$work/linux" O="$work/$name" ARCH=x86 KCONFIG_ALLCONFIG="$work/$name.fragment" allnoconfig 2>/dev/null
	(cd "$here/kernel" && check_config "$work/$name/.config" "$@")
	kmake "$name" vmlinux
	# The symbol table goes, the PVH note stays.
	objcopy --strip-all --remove-section .comment "$work/$name/vmlinux" "$work/vmlinux-$name"
	cp "$work/$name/.config" "$out/vmlinux-$name.config"
	pack "$work/vmlinux-$name" "kernel-$name"
}

build_init() {
	mkdir -p "$work/lean"
	test -e "$work/lean/.config" || make -s -C "$work/linux" O="$work/lean" ARCH=x86 allnoconfig
	kmake lean headers >/dev/null
	(cd "$here/rootfs/init" && gcc -Os -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Werror \
		-static -nostdlib -nostdinc -isystem "$(gcc -print-file-name=include)" \
		-I"$work/linux/tools/include/nolibc" -Icompat -I"$work/lean/usr/include" \
		-ffile-prefix-map="$work=/build" -fno-stack-protector -fno-asynchronous-unwind-tables -fno-ident \
		-ffunction-sections -fdata-sections -Wl,--gc-sections -Wl,--build-id=none \
		-Wl,-z,noseparate-code -s ./*.c -o "$work/init" -lgcc)
}

build_rootfs() {
	build_init
	(
		cd "$here/rootfs/userland"
		export CGO_ENABLED=0 GOOS=linux GOARCH=amd64 GOAMD64=v1 GOWORK=off
		GOTOOLCHAIN=$(sed -n 's/^toolchain //p' go.mod)
		export GOTOOLCHAIN
		# shellcheck disable=SC2046 # words are meant
		go tool makebb -go-extra-args='-ldflags=-s -w -buildid= -R 0x200000' -o "$work/bb" \
			$(./commands.sh) ./sh 2>"$work/bb.log" || { cat "$work/bb.log" >&2; exit 1; }
		go run ./align "$work/bb"
	)
	"$here/rootfs/root.sh" "$work/init" "$work/bb" "$work/rootfs.erofs"
	pack "$work/rootfs.erofs" rootfs
	pack "$work/init" init
}

# pack FILE NAME: compress it into $out, and note size and hash of the original.
pack() {
	sum=$(sha256sum "$1" | cut -d' ' -f1)
	size=$(stat -c %s "$1")
	touch "$out/manifest"
	{ grep -v "^$2 " "$out/manifest" || true; echo "$2 $size $sum"; } | sort >"$out/manifest.new"
	mv "$out/manifest.new" "$out/manifest"
	zstd -q -f --ultra -22 --long=27 -T1 "$1" -o "$out/$2.zst"
	echo "$2: $size bytes, $(stat -c %s "$out/$2.zst") compressed"
}

provenance() {
	{
		echo "# How the images beside this file were made. 'make verify-images' makes them again and compares."
		echo "kernel source: Debian $(setting package) $(setting version), $(setting tarball) SHA-256 $(setting sha256), no patch of ours"
		echo "kernel configuration: allnoconfig + ../kernel/lean.config (+ ../kernel/full.config); the results are vmlinux-*.config"
		echo "init: ../rootfs/init, with nolibc of the same kernel source"
		echo "userland: $(sed -n 's/^\tgithub.com\/u-root\/u-root \(v[^ ]*\).*/github.com\/u-root\/u-root \1/p' "$here/rootfs/userland/go.mod"), ../rootfs/userland/sh"
		echo "compiler: $(gcc --version | head -1); $(ld --version | head -1)"
		echo "go: $(cd "$here/rootfs/userland" && GOTOOLCHAIN=$(sed -n 's/^toolchain //p' go.mod) go env GOVERSION)"
		echo "file system: $(mkfs.erofs --version 2>&1 | head -1)"
		echo "inputs SHA-256: $("$here/inputs.sh")"
		echo "# name, size and SHA-256 of what the .zst files hold"
		cat "$out/manifest"
	} >"$out/PROVENANCE"
}

fetch_source
test $# -gt 0 || set -- kernel-lean kernel-full rootfs
for part in "$@"; do
	case $part in
	kernel-lean) build_kernel lean lean.config ;;
	kernel-full) build_kernel full lean.config full.config ;;
	rootfs) build_rootfs ;;
	*) echo "$part: build.sh knows kernel-lean, kernel-full and rootfs" >&2; exit 2 ;;
	esac
done
provenance
