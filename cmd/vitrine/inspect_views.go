package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func init() {
	liveExtras = append(liveExtras, inspectExtra)
	inspectFlags = append(inspectFlags,
		&cli.IntFlag{Name: "cpu", Usage: "`N` the CPU whose registers and page tables count"},
		&cli.IntFlag{Name: "length", Usage: "`N` instructions, or bytes of memory"},
		&cli.StringFlag{Name: "symbols", Usage: "`FILE` with the guest kernel's symbols, so that a function's name is an address"},
		&cli.BoolFlag{Name: "json", Usage: "print the view as JSON"},
	)
	for _, name := range vmm.Inspections() {
		inspectViews[name] = func(c *cli.Context, m *control.Client, args []string) error { return inspectView(c, m, name, args) }
	}
}

// takesAddress are the views that an address belongs to; of those that are
// true it must be given.
var takesAddress = map[string]bool{"pagetable": true, "disasm": false, "memory": false}

func inspectView(c *cli.Context, m *control.Client, name string, args []string) error {
	query := url.Values{"cpu": {strconv.Itoa(c.Int("cpu"))}, "length": {strconv.Itoa(c.Int("length"))}}
	must, may := takesAddress[name]
	switch {
	case len(args) > 1, len(args) == 1 && !may && name != "queues" && name != "cpu":
		return usagef("vitrine inspect NAME "+name, "inspect %s: unexpected argument %s", name, quote(args[len(args)-1]))
	case len(args) == 0 && must:
		return usagef("vitrine inspect NAME "+name+" ADDRESS", "inspect %s: which address?", name)
	case len(args) == 1 && name == "queues":
		query.Set("name", args[0])
	case len(args) == 1 && name == "cpu":
		query.Set("cpu", args[0])
	case len(args) == 1:
		addr, err := parseAddress(c, c.Args().First(), args[0])
		if err != nil {
			return err
		}
		query.Set("addr", fmt.Sprintf("%#x", addr))
	}
	var v struct {
		Text string
		Data json.RawMessage
	}
	if err := m.Inspect(c.Context, name, query, &v); err != nil {
		return err
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, v.Data)
	}
	_, err := fmt.Fprint(c.App.Writer, v.Text)
	return err
}

// parseAddress is an address in the guest: a number, or a function of its
// kernel.
func parseAddress(c *cli.Context, machine, s string) (uint64, error) {
	path := c.String("symbols")
	if v, err := strconv.ParseUint(s, 0, 64); err == nil {
		return v, nil
	}
	if v, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 64); err == nil && path == "" {
		return v, nil
	}
	table, err := symbolsFor(c, machine, path)
	if err != nil {
		return 0, err
	}
	addr, ok := table.Addr(s)
	if !ok {
		return 0, usagef("vitrine symbols "+machine+" lists them", "the kernel has no function %s", quote(s))
	}
	return addr, nil
}

// inspectExtra serves the views of a machine: /v1/inspect/NAME, with cpu, addr,
// length and name.
func inspectExtra(m *vmm.Machine) control.Extra {
	e := control.Extra{Inspect: make(map[string]http.Handler)}
	for _, name := range vmm.Inspections() {
		e.Inspect[name] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			q, err := inspectQuery(r.URL.Query())
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			v, err := m.Inspect(r.Context(), name, q)
			if err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	return e
}

func inspectQuery(v url.Values) (q vmm.InspectQuery, err error) {
	number := func(name string, to *int) {
		s := v.Get(name)
		if s == "" || err != nil {
			return
		}
		if *to, err = strconv.Atoi(s); err != nil {
			err = fmt.Errorf("%s: want a number", name)
		}
	}
	number("cpu", &q.CPU)
	number("length", &q.Length)
	q.Name = v.Get("name")
	if s := v.Get("addr"); s != "" && err == nil {
		q.HasA = true
		if q.Addr, err = strconv.ParseUint(s, 0, 64); err != nil {
			err = fmt.Errorf("addr: want an address")
		}
	}
	return q, err
}
