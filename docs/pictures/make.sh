#!/usr/bin/env bash
# Makes the README's picture: measures everything that is here, and takes a
# picture of the report with Chromium. RUNS=N starts of each engine; FROM=FILE
# draws a comparison that was kept, instead of measuring.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bin/vitrine compare ${FROM:+--from "$FROM"} --runs "${RUNS:-10}" --report "$dir"
chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --user-data-dir="$dir/profile" \
  --window-size=900,"${HEIGHT:-1650}" --screenshot="$dir/compare.png" "file://$dir/index.html" 2>"$dir/log" || { cat "$dir/log"; exit 1; }
mv "$dir/compare.png" docs/pictures/compare.png
ls -l docs/pictures/compare.png
