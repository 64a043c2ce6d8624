#!/bin/sh
# build.sh OUT: compile probe.c. The committed probe was made by the compiler
# that COMPILER names; the same one gives the same bytes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
gcc -O2 -static -nostdlib -ffreestanding -fno-pic -no-pie -fno-stack-protector \
	-fno-asynchronous-unwind-tables -fcf-protection=none -Wall -Wextra -Werror \
	-Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,norelro -s -o "$1" probe.c
