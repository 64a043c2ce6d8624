package compare

import (
	"bytes"
	"fmt"
	"html"
	"image/color"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// figure is plots above each other, and side by side.
type figure struct {
	plots  [][]*plot.Plot
	height vg.Length
}

func (f *figure) draw(c vg.CanvasSizer) {
	d := draw.New(c)
	t := draw.Tiles{Rows: len(f.plots), Cols: len(f.plots[0]), PadX: 14, PadY: 4, PadTop: 4, PadBottom: 4, PadLeft: 4, PadRight: 10}
	canvases := plot.Align(f.plots, t, d)
	for y, line := range f.plots {
		for x, p := range line {
			p.Draw(canvases[y][x])
		}
	}
}

func (f *figure) svg() ([]byte, error) {
	c := vgsvg.NewWith(vgsvg.UseWH(chartWidth, f.height))
	f.draw(c)
	var b bytes.Buffer
	_, err := c.WriteTo(&b)
	return textPattern().ReplaceAllFunc(b.Bytes(), fitText), err
}

// textPattern is a text as vgsvg writes it, with its size and what it says.
var textPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`<text ([^>]*font-size:([0-9.]+)px[^>]*)>([^<]*)</text>`)
})

// fitText gives a text the width for which room was made, whatever font the
// reader has. Hangul, which the library's font lacks, is left as it is.
func fitText(svg []byte) []byte {
	m := textPattern().FindSubmatch(svg)
	size, err := strconv.ParseFloat(string(m[2]), 64)
	words := html.UnescapeString(string(m[3]))
	if err != nil || size < 1 || words == "" || strings.ContainsFunc(words, func(r rune) bool { return unicode.Is(unicode.Hangul, r) }) {
		return svg
	}
	face := font.DefaultCache.Lookup(sans(vg.Length(size)), vg.Length(size))
	width := face.Width(words)
	return fmt.Appendf(nil, `<text textLength="%.4g" lengthAdjust="spacingAndGlyphs" %s>%s</text>`, width.Points(), m[1], m[3])
}

// pngDPI makes a chart as wide as a page of paper at 200 dots an inch.
const pngDPI = 144

func (f *figure) png() ([]byte, error) {
	c := vgimg.NewWith(vgimg.UseWH(chartWidth, f.height), vgimg.UseDPI(pngDPI), vgimg.UseBackgroundColor(color.White))
	f.draw(c)
	var b bytes.Buffer
	_, err := vgimg.PngCanvas{Canvas: c}.WriteTo(&b)
	return b.Bytes(), err
}

// newPlot is an empty plot in the report's style.
func newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	p.Title.TextStyle.Font, p.Title.TextStyle.Color = sans(11), ink
	p.Legend.TextStyle.Font, p.Legend.TextStyle.Color = sans(10), ink
	p.Legend.Top, p.Legend.ThumbnailWidth, p.Legend.Padding = true, 16, 2
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Label.TextStyle.Color, a.Tick.Color, a.Tick.Label.Color = ink, ink, ink, ink
		a.Label.TextStyle.Font, a.Tick.Label.Font = sans(10), sans(10)
		a.LineStyle.Width, a.Tick.LineStyle.Width = 0.6, 0.6
	}
	return p
}

// rowPlot has a row for each name, the first on top.
func rowPlot(names []string) *plot.Plot {
	p := newPlot()
	names = slices.Clone(names)
	slices.Reverse(names)
	g := plotter.NewGrid()
	g.Horizontal.Color, g.Vertical.Color = color.Transparent, faint
	p.Add(g)
	p.NominalY(names...)
	p.Y.LineStyle.Width = 0
	p.Y.Min, p.Y.Max = -0.6, float64(len(names))-0.4
	return p
}

// logarithmic makes an axis for values that lie in x: from a whole decade on,
// and room times as far as the largest.
func logarithmic(a *plot.Axis, x []float64, room float64) {
	low, high := slices.Min(x), slices.Max(x)
	a.Min = math.Pow(10, math.Floor(math.Log10(low)))
	a.Max = max(high*room, a.Min*10)
	a.Scale = plot.LogScale{}
	a.Tick.Marker = decades{most: 8}
}

// decades marks powers of ten, and names at most so many in plain digits.
type decades struct{ most int }

// Ticks implements plot.Ticker.
func (d decades) Ticks(low, high float64) []plot.Tick {
	var t []plot.Tick
	all := int(math.Floor(math.Log10(high*1.001)-math.Log10(low))) + 1
	every := (all + d.most - 1) / d.most
	n := 0
	for v := math.Pow(10, math.Round(math.Log10(low))); v <= high*1.001; v *= 10 {
		tick := plot.Tick{Value: v, Label: " "} // a long mark without a name
		if n%every == 0 {
			tick.Label = fmt.Sprintf("%g", math.Round(v*1e6)/1e6)
		}
		t = append(t, tick)
		for m := 2.0; m < 10 && v*m <= high*1.001; m++ {
			t = append(t, plot.Tick{Value: v * m})
		}
		n++
	}
	return t
}

// plainTicks are the library's, with numbers as people write them.
type plainTicks struct{}

// Ticks implements plot.Ticker.
func (plainTicks) Ticks(low, high float64) []plot.Tick {
	t := plot.DefaultTicks{}.Ticks(low, high)
	for i := range t {
		if t[i].Label != "" {
			t[i].Label = trim(math.Round(t[i].Value*1e6) / 1e6)
		}
	}
	return t
}
