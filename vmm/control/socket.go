package control

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
)

// maxSocketPath is sun_path of unix(7) without its NUL.
const maxSocketPath = 107

// shortened calls f with a path for the socket that the system takes: a longer
// one goes by a descriptor of its folder, where /proc is.
func shortened(path string, f func(path string) error) error {
	if len(path) <= maxSocketPath || runtime.GOOS != "linux" {
		return f(path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

func listen(path string) (ln net.Listener, err error) {
	err = shortened(path, func(short string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		if err != nil {
			return err
		}
		// Whoever holds the machine's name removes the file, by its real path.
		l.SetUnlinkOnClose(false)
		ln = l
		return nil
	})
	return ln, err
}

func dial(ctx context.Context, path string) (conn net.Conn, err error) {
	err = shortened(path, func(short string) error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "unix", short)
		return err
	})
	return conn, err
}
