#!/usr/bin/env bash
# Fetches the terminal that the page uses, as published, and proves that it is
# what it was: the digest is npm's own of that version.
set -euo pipefail
cd "$(dirname "$0")"
version=6.0.0
integrity=TQwDdQGtwwDt+2cgKDLn0IRaSxYu1tSUjgKarSDkUM0ZNiSRXFpjxEsvc/Zgc5kq5omJ+V0a8/kIM2WD3sMOYg==
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
curl -sSfL "https://registry.npmjs.org/@xterm/xterm/-/xterm-$version.tgz" -o "$tmp/xterm.tgz"
got=$(openssl dgst -sha512 -binary "$tmp/xterm.tgz" | base64 -w0)
[ "$got" = "$integrity" ] || { echo "xterm $version: the file is not the one that was pinned" >&2; exit 1; }
tar -xzf "$tmp/xterm.tgz" -C "$tmp"
# Without the pointer to a source map, which is not here.
sed '/^\/\/# sourceMappingURL=/d' "$tmp/package/lib/xterm.mjs" >xterm.mjs
cp "$tmp/package/css/xterm.css" xterm.css
cp "$tmp/package/LICENSE" LICENSE.xterm
