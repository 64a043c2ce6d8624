#!/bin/sh
# Prints the package of each command of u-root in the default guest.
awk -F': ' '/^[a-z]/ { n = split($2, c, " "); for (i = 1; i <= n; i++) print "github.com/u-root/u-root/cmds/" $1 "/" c[i] }' "$(dirname "$0")/commands"
