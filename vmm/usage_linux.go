package vmm

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// clockTick is the unit of times in /proc: USER_HZ, which Linux never changed
// on x86.
const clockTick = 10 * time.Millisecond

// cpuUsage is where the time of the vCPUs' threads went so far (proc(5),
// /proc/pid/stat: utime, stime and guest_time).
func (m *Machine) cpuUsage() []trace.Usage {
	var list []trace.Usage
	for _, c := range m.cpus {
		if u, ok := threadUsage(int(c.thread.Load())); ok {
			u.CPU = c.id
			list = append(list, u)
		}
	}
	return list
}

func threadUsage(id int) (u trace.Usage, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", id))
	if id == 0 || err != nil {
		return u, false
	}
	// The second field is a name in parentheses that may hold anything.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const utime, stime, guest = 14 - 3, 15 - 3, 43 - 3
	if len(f) <= guest {
		return u, false
	}
	for _, x := range []struct {
		to *time.Duration
		at int
	}{{&u.User, utime}, {&u.Kernel, stime}, {&u.Guest, guest}} {
		n, err := strconv.ParseInt(string(f[x.at]), 10, 64)
		if err != nil {
			return u, false
		}
		*x.to = time.Duration(n) * clockTick
	}
	return u, true
}
