#!/bin/sh
# Prints one hash over everything that the images are made from, so that CI can
# tell whether they must be made again.
set -eu
cd "$(dirname "$0")"
find build.sh inputs.sh kernel rootfs -type f ! -name "*_test.go" | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1
