package compare

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed page.html
var pageText string

var page = sync.OnceValue(func() *template.Template { return template.Must(template.New("page").Parse(pageText)) })

func trim(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// pageData is what the page's template takes.
type pageData struct {
	Lang, Title, Subtitle         string
	HostTitle, WarnTitle          string
	SkippedTitle, TableTitle, Raw string
	Host                          [][2]string
	Warnings                      []string
	Skipped                       []Skipped
	Head                          []string
	Rows                          [][]string
	Notes                         [][2]string
	Note                          string
	Charts                        []chartData
	Data                          template.URL
}

type chartData struct {
	Name, Title, Text, Extra string
	SVG                      template.HTML
}

// WriteReport writes index.html, one page that needs nothing else, the charts
// as SVG and PNG files, and all measurements as compare.json into the folder
// dir, which it makes. The PNG files are in English always: the fonts that are
// drawn with have no Hangul.
func WriteReport(dir string, r *Result, lang string) error {
	w := wordsOf(lang)
	figures, err := charts(r, w)
	if err != nil {
		return err
	}
	files := make(map[string][]byte)
	svgs := make(map[string][]byte)
	for name, f := range figures {
		if svgs[name], err = f.svg(); err != nil {
			return fmt.Errorf("chart %s: %w", name, err)
		}
		files[name+".svg"] = svgs[name]
	}
	var raw, html bytes.Buffer
	if err := r.WriteJSON(&raw); err != nil {
		return err
	}
	if err := page().Execute(&html, newPageData(r, w, svgs)); err != nil {
		return err
	}
	files["index.html"], files["compare.json"] = html.Bytes(), raw.Bytes()
	if err := addPNGs(files, r); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func addPNGs(files map[string][]byte, r *Result) error {
	figures, err := charts(r, wordsOf("en"))
	if err != nil {
		return err
	}
	for name, f := range figures {
		if files[name+".png"], err = f.png(); err != nil {
			return fmt.Errorf("chart %s: %w", name, err)
		}
	}
	return nil
}

func newPageData(r *Result, w *words, svgs map[string][]byte) *pageData {
	d := &pageData{Lang: w.lang, Title: w.title, Subtitle: w.subtitle, HostTitle: w.host, WarnTitle: w.warnings, SkippedTitle: w.skipped,
		TableTitle: w.table, Raw: w.raw, Host: hostRows(r, w), Warnings: r.Warnings, Skipped: r.Skipped, Note: w.note}
	all := rows(r, w)
	d.Head = all[0].cells
	for _, l := range all[1:] {
		d.Rows = append(d.Rows, l.cells)
	}
	for _, e := range r.Engines {
		text := strings.Join(append(slices.DeleteFunc([]string{e.Version, e.Note, "./tmp: " + e.FS}, func(s string) bool { return s == "" }), e.Failures...), "; ")
		d.Notes = append(d.Notes, [2]string{e.Title, text})
	}
	for _, name := range chartNames() {
		svg, ok := svgs[name]
		if !ok {
			continue
		}
		c := chartData{Name: name, Title: w.charts[name][0], Text: w.charts[name][1], SVG: inline(svg, w.charts[name][0])}
		switch name {
		case "start":
			c.Text = fmt.Sprintf(c.Text, duration(mostCarry(r)))
		case "density":
			c.Extra = degradation(r, w)
		}
		d.Charts = append(d.Charts, c)
	}
	raw, _ := json.Marshal(r) // WriteReport has written it once already
	d.Data = template.URL("data:application/json;base64," + base64.StdEncoding.EncodeToString(raw))
	return d
}

func hostRows(r *Result, w *words) [][2]string {
	h := r.Host
	return [][2]string{
		{w.cpu, fmt.Sprintf("%s × %d", h.CPU, h.CPUs)}, {w.ram, bytesText(h.Memory)}, {w.kernel, h.Kernel}, {w.kvm, h.KVM},
		{w.cgroups, h.Cgroups}, {w.load, fmt.Sprintf("%.2f", h.LoadBefore)}, {w.cache, r.Options.PageCache},
		{"vitrine", r.Vitrine}, {w.measured, fmt.Sprintf(w.tookOn, r.Took.Round(time.Second), r.When.Format("2006-01-02 15:04 MST"))},
	}
}

// mostCarry is the largest of the engines' typical costs of the first mark,
// where there is a clock to tell it.
func mostCarry(r *Result) float64 {
	most := 0.0
	for _, e := range r.Engines {
		if e.OwnClock() {
			most = max(most, Summarize(e.Carry).Median)
		}
	}
	return most
}

func degradation(r *Result, w *words) string {
	var lines []string
	for _, e := range r.Engines {
		if n, what := e.Degrades(); n > 0 {
			lines = append(lines, fmt.Sprintf(w.degrades, e.Title, n, w.degradeWhat[what]))
		}
	}
	if len(lines) == 0 {
		return w.steady
	}
	return strings.Join(lines, " ")
}

// inline makes a chart part of the page: without the XML heading, as wide as
// the page, in the page's colours for text, and with a name for screen readers.
func inline(svg []byte, name string) template.HTML {
	s := string(svg)
	if i := strings.Index(s, "<svg"); i >= 0 {
		s = s[i:]
	}
	if head, rest, ok := strings.Cut(s, ">"); ok {
		box := "0 0 660 300"
		if _, after, ok := strings.Cut(head, `viewBox="`); ok {
			box, _, _ = strings.Cut(after, `"`)
		}
		s = fmt.Sprintf(`<svg viewBox="%s" role="img" aria-label="%s">`, box, template.HTMLEscapeString(name)) + rest
	}
	s = strings.NewReplacer("#1B1B1F", "var(--ink)", "#D6D6DB", "var(--grid)",
		"font-family:Liberation Sans", "font-family:var(--chart)").Replace(s)
	return template.HTML(s)
}
