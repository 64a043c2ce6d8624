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
	line     []byte
	json     *json.Encoder
}

var _ vmm.TraceSink = (*viewer)(nil)

// Events implements vmm.TraceSink.
func (w *viewer) Events(events []trace.Event) error {
	if w.buf == nil {
		w.buf = bufio.NewWriterSize(w.out, 64<<10)
		w.json = json.NewEncoder(w.buf)
	}
	for _, e := range events {
		it, ok := w.pieces.Add(e)
		if !ok {
			continue
		}
		if it.Kind == trace.KindInstruction && w.filter == nil && (w.onlyCounts() || w.onlyLists()) {
			if err := w.instruction(&it); err != nil {
				return err
			}
			w.pieces.Reuse(&it)
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

// onlyCounts and onlyLists say that instructions become nothing but counters, or
// lines of text: there are millions of them.
func (v *view) onlyCounts() bool {
	return v.counts && !v.lists() && v.perfetto == "" && v.pcap == ""
}

func (v *view) onlyLists() bool {
	return !v.counts && !v.json && !v.why && !v.registers && v.perfetto == "" && v.pcap == ""
}

// instruction is show for an instruction, of which nobody wants more than the
// text, or the count.
func (w *viewer) instruction(it *trace.Item) error {
	if w.summary != nil {
		w.summary.Executed(it.Time, w.decoder.Executed(it))
		return nil
	}
	w.line = w.decoder.AppendInstruction(w.line[:0], it)
	_, err := w.buf.Write(w.line)
	return err
}

func (w *viewer) show(it *trace.Item, l *decode.Line) error {
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
	case w.view.json:
		return w.json.Encode(l)
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
	last := bufio.NewWriter(w.out)
	if w.summary != nil {
		w.summary.Write(last, e)
	} else if e.Lost > 0 {
		fmt.Fprintf(last, "%d events were lost: whoever reads them was too slow (try --filter, --summary or --output)\n", e.Lost)
	}
	if w.perfetto != nil {
		w.perfetto.End(e)
	}
	return errors.Join(last.Flush(), w.close())
}

func (w *viewer) close() error {
	var err error
	for _, c := range w.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}
