#!/usr/bin/env bash
# Assembles every program of the labs beside its source, with GNU as and ld: flat
# binaries, to be loaded at 0x8000. With --verify it writes nothing and says
# which committed binary is not what its source makes.
set -euo pipefail
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0
for source in */*.s; do
  as --64 -o "$tmp/a.o" "$source"
  ld -m elf_x86_64 -Ttext 0x8000 -e 0x8000 --oformat binary -o "$tmp/a.bin" "$tmp/a.o"
  binary=${source%.s}.bin
  if [ "${1:-}" = --verify ]; then
    cmp -s "$tmp/a.bin" "$binary" || { echo "$binary is not what $source makes"; status=1; }
  else
    cp "$tmp/a.bin" "$binary"
    chmod 644 "$binary"
  fi
done
exit $status
