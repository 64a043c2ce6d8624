#!/bin/sh
# Proves that the committed images are what the recipe makes: builds them again,
# elsewhere, and compares. With --quick, only checks that the recipe has not
# changed since, and that the compressed files hold what the manifest says.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
fail=0

recorded=$(sed -n 's/^inputs SHA-256: //p' "$here/images/PROVENANCE")
test "$recorded" = "$("$here/inputs.sh")" || {
	echo "the recipe has changed since the images were made: run make guest-images" >&2
	fail=1
}
while read -r name size sum; do
	got=$(zstd -q -d -c --long=27 "$here/images/$name.zst" | sha256sum | cut -d' ' -f1)
	test "$got" = "$sum" || { echo "images/$name.zst does not hold what the manifest says" >&2; fail=1; }
done <"$here/images/manifest"
test "${1:-}" = --quick && exit $fail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
VITRINE_BUILD=$dir/build VITRINE_OUT=$dir/out "$here/build.sh"
grep -E '^(compiler|go|file system):' "$here/images/PROVENANCE" >"$dir/theirs"
grep -E '^(compiler|go|file system):' "$dir/out/PROVENANCE" >"$dir/ours"
if ! diff "$here/images/manifest" "$dir/out/manifest"; then
	diff "$dir/theirs" "$dir/ours" || echo "the tools differ too: compare with the same ones" >&2
	fail=1
fi
test $fail = 0 || exit 1
echo "$recorded" >"$here/images/VERIFIED" # for CI: not again until the recipe changes
echo "the committed images are what the recipe makes"
