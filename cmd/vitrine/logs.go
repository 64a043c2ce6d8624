package main

import (
	"io"
	"log/slog"
	"sync/atomic"

	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// machineLogs are the two logs in a machine's folder: what its guest wrote to
// the console, and what the VMM has to say.
type machineLogs struct {
	handler slog.Handler // of the VMM's log; nil without a folder
	vmm     *logFile
	console *logFile
	written chan struct{} // closed when the console's log has all
}

// openLogs opens a machine's logs. Without a claim there are none.
func openLogs(claim *control.Claim, o *runOptions, hub *control.Hub) *machineLogs {
	g := &machineLogs{written: make(chan struct{})}
	if claim == nil {
		close(g.written)
		return g
	}
	g.vmm = newLogFile(claim.Path(control.LogFile), o.logSize)
	g.console = newLogFile(claim.Path(control.ConsoleFile), o.logSize)
	options := &slog.HandlerOptions{Level: o.fileLevel}
	if o.logFormat == "json" {
		g.handler = slog.NewJSONHandler(g.vmm, options)
	} else {
		g.handler = slog.NewTextHandler(g.vmm, options)
	}
	// A disk that is slow or full holds up this goroutine, not the guest: the
	// hub drops what a user cannot take.
	user := hub.Join()
	go func() {
		defer close(g.written)
		_, _ = io.Copy(g.console, user)
	}()
	return g
}

// close writes the rest; the hub must have been closed.
func (g *machineLogs) close() {
	<-g.written
	if g.vmm == nil {
		return
	}
	g.console.Close()
	g.vmm.Close()
}

// logFile is a file that is turned over at a size, with one old one kept. A
// write never fails: what a full disk does not take is lost, and the log says
// so when there is room again.
type logFile struct {
	w    lumberjack.Logger
	lost atomic.Uint64
}

const lostNote = "[vitrine: some of the log is missing here: the disk was full]\n"

func newLogFile(path string, size uint64) *logFile {
	f := new(logFile)
	f.w.Filename, f.w.MaxBackups = path, 1
	f.w.MaxSize = int(max(1, size>>20)) // lumberjack counts in MiB
	return f
}

func (f *logFile) Write(p []byte) (int, error) {
	if f.lost.Load() > 0 {
		if _, err := io.WriteString(&f.w, lostNote); err != nil {
			f.lost.Add(uint64(len(p)))
			return len(p), nil
		}
		f.lost.Store(0)
	}
	if n, err := f.w.Write(p); err != nil {
		f.lost.Add(uint64(len(p) - n))
	}
	return len(p), nil
}

func (f *logFile) Close() { _ = f.w.Close() }

// log is where the runner's parts log to: standard error, and the machine's own
// log where there is one.
func (r *runner) log(logs *machineLogs) *slog.Logger {
	out := r.errOut.logger(r.opt.logLevel())
	if logs == nil || logs.handler == nil {
		return out
	}
	return slog.New(slog.NewMultiHandler(out.Handler(), logs.handler))
}

// logLevels are what --log-level takes.
var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}
