package main

import "errors"

var errNoEmbedded = errors.New("this build has no embedded guest: give a kernel with --kernel FILE")

// openKernel chooses the kernel and its command line.
func (l *launch) openKernel(o *runOptions) error {
	if o.embedded != "" {
		return errNoEmbedded
	}
	l.cfg.Kernel = o.kernel
	l.cfg.CommandLine = o.ownCommandLine()
	return nil
}

// openAgent connects the user with the agent in the embedded guest.
func (l *launch) openAgent(*runOptions, *runner) error { return errNoEmbedded }
