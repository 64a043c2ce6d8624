package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
	"github.com/vitrine-vmm/vitrine/vmm/trace/export"
)

// viewer shows a trace.
type viewer struct {
	*view
	decoder  *decode.Decoder
	pieces   *trace.Assembler
	explain  decode.Explainer
	summary  *export.Summary
	perfetto *export.Perfetto
	pcap     *export.PCAP
	out      io.Writer
	buf      *bufio.Writer
	closers  []io.Closer
	shown    uint64
}

var _ vmm.TraceSink = (*viewer)(nil)

// Events implements vmm.TraceSink.
func (w *viewer) Events(events []trace.Event) error {
	if w.buf == nil {
		w.buf = bufio.NewWriterSize(w.out, 32<<10)
	}
	for _, e := range events {
		it, ok := w.pieces.Add(e)
		if !ok {
			continue
		}
		l := w.decoder.Line(&it)
		if !w.filter.Match(&l) {
			continue
		}
		if err := w.show(&it, &l); err != nil {
			return err
		}
	}
	return w.buf.Flush()
}

func (w *viewer) show(it *trace.Item, l *decode.Line) error {
	w.shown++
	if w.summary != nil {
		w.summary.Add(l)
	}
	if w.perfetto != nil {
		if err := w.perfetto.Add(it, l); err != nil {
			return err
		}
	}
	if w.pcap != nil {
		if err := w.pcap.Add(it, l); err != nil {
			return err
		}
	}
	switch {
	case !w.lists():
		return nil
	case w.json:
		return json.NewEncoder(w.buf).Encode(l)
	}
	if _, err := w.buf.WriteString(l.String() + "\n"); err != nil {
		return err
	}
	if w.registers && l.Instruction != nil {
		if _, err := w.buf.WriteString(l.Instruction.Table()); err != nil {
			return err
		}
	}
	if !w.why {
		return nil
	}
	if s := w.explain.Why(l); s != "" {
		_, err := fmt.Fprintf(w.buf, "%13s↳ %s\n", "", s)
		return err
	}
	return nil
}

// End implements vmm.TraceSink.
func (w *viewer) End(e *trace.End) error {
	if w.summary != nil {
		w.summary.Write(w.out, e)
	} else if e.Lost > 0 {
		fmt.Fprintf(w.out, "%d events were lost: whoever reads them was too slow (try --filter, --summary or --output)\n", e.Lost)
	}
	if w.perfetto != nil {
		w.perfetto.End(e)
	}
	return w.close()
}

func (w *viewer) close() error {
	var err error
	for _, c := range w.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}
