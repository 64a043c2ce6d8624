//go:build !unix || solaris || aix

package usernet

import "errors"

func lockFile(string) (unlock func(), err error) {
	return nil, errors.New("groups of user networks need UNIX datagram sockets")
}
