package compare

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// ink and faint are the colours of text and of the grid: not quite black, since
// the library leaves out what is, and the page replaces them by the reader's.
var (
	ink   = color.RGBA{0x1b, 0x1b, 0x1f, 0xff}
	faint = color.RGBA{0xd6, 0xd6, 0xdb, 0xff}
)

// palette is by Okabe and Ito (Color Universal Design, 2008): colour-blind
// readers tell its colours apart. Where there are more lines than colours, and
// wherever lines cross, dashes and shapes differ too.
var palette = []color.RGBA{
	{0x00, 0x72, 0xb2, 0xff}, {0xe6, 0x9f, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff},
	{0xd5, 0x5e, 0x00, 0xff}, {0xcc, 0x79, 0xa7, 0xff}, {0x56, 0xb4, 0xe9, 0xff},
}

var shapes = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, draw.RingGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.CrossGlyph{}, draw.PlusGlyph{}}

var dashes = [][]vg.Length{nil, {6, 3}, {2, 2}, {8, 2, 2, 2}}

// chartNames are the charts of a report, in its order.
func chartNames() []string { return []string{"start", "work", "memory", "cpu", "density", "disk"} }

const (
	chartWidth = 660 // points
	rowHeight  = 25
	axisHeight = 62
)

// charts draws all charts of which there is something to draw.
func charts(r *Result, w *words) (map[string]*figure, error) {
	all := map[string]func(*Result, *words) (*figure, error){
		"start": startChart, "work": workChart, "memory": memoryChart, "cpu": cpuChart, "density": densityChart, "disk": diskChart,
	}
	figures := make(map[string]*figure)
	for _, name := range chartNames() {
		f, err := all[name](r, w)
		if err != nil {
			return nil, fmt.Errorf("chart %s: %w", name, err)
		}
		if f != nil {
			figures[name] = f
		}
	}
	return figures, nil
}

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
	return b.Bytes(), err
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

func sans(size vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
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

// logarithmic makes whole decades of an axis whose values lie in x.
func logarithmic(a *plot.Axis, x []float64) {
	low, high := slices.Min(x), slices.Max(x)
	a.Min = math.Pow(10, math.Floor(math.Log10(low)))
	a.Max = math.Pow(10, math.Ceil(math.Log10(high)))
	if a.Max <= a.Min {
		a.Max = a.Min * 10
	}
	a.Scale = plot.LogScale{}
	a.Tick.Marker = decades{}
}

// decades marks powers of ten, and names them in plain digits.
type decades struct{}

// Ticks implements plot.Ticker.
func (decades) Ticks(low, high float64) []plot.Tick {
	var t []plot.Tick
	for v := math.Pow(10, math.Round(math.Log10(low))); v <= high*1.001; v *= 10 {
		t = append(t, plot.Tick{Value: v, Label: fmt.Sprintf("%g", math.Round(v*1e6)/1e6)})
		for m := 2.0; m < 10 && v*m <= high*1.001; m++ {
			t = append(t, plot.Tick{Value: v * m})
		}
	}
	return t
}

// millisOf is x in milliseconds, bounded from below for logarithms.
func millisOf(x []float64) []float64 {
	ms := make([]float64, len(x))
	for i, v := range x {
		ms[i] = max(v, 100) / 1e6
	}
	return ms
}

// titles are the engines' names in the charts.
func titles(engines []EngineResult) []string {
	var t []string
	for _, e := range engines {
		t = append(t, e.Title)
	}
	return t
}

func rowsHeight(n int) vg.Length { return vg.Length(n)*rowHeight + axisHeight }

// median draws the median of x with its interval at the height y.
func median(p *plot.Plot, x []float64, y float64, c color.Color, g draw.GlyphDrawer) error {
	s := Summarize(x)
	line, err := plotter.NewLine(plotter.XYs{{X: s.Low, Y: y}, {X: s.High, Y: y}})
	if err != nil {
		return err
	}
	line.Color, line.Width = c, 2.2
	dot, err := plotter.NewScatter(plotter.XYs{{X: s.Median, Y: y}})
	if err != nil {
		return err
	}
	dot.GlyphStyle = draw.GlyphStyle{Color: c, Radius: 3.6, Shape: g}
	p.Add(line, dot)
	return nil
}

func with(engines []EngineResult, has func(*EngineResult) bool) []EngineResult {
	var some []EngineResult
	for i := range engines {
		if has(&engines[i]) {
			some = append(some, engines[i])
		}
	}
	return some
}

// startChart has a strip of all runs for each engine.
func startChart(r *Result, w *words) (*figure, error) {
	engines := with(r.Engines, func(e *EngineResult) bool { return len(e.Start) > 0 })
	if len(engines) == 0 {
		return nil, nil
	}
	p := rowPlot(titles(engines))
	p.X.Label.Text = w.millis
	var all []float64
	for i, e := range engines {
		y := float64(len(engines) - 1 - i)
		ms := millisOf(e.Start)
		all = append(all, ms...)
		var xy plotter.XYs
		for j, v := range ms {
			// Spread out, so that equal runs do not hide each other.
			xy = append(xy, plotter.XY{X: v, Y: y - 0.22 + 0.07*float64(j%3-1)})
		}
		dots, err := plotter.NewScatter(xy)
		if err != nil {
			return nil, err
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: palette[5], Radius: 2, Shape: draw.CircleGlyph{}}
		p.Add(dots)
		if err := median(p, ms, y+0.1, palette[0], draw.BoxGlyph{}); err != nil {
			return nil, err
		}
	}
	logarithmic(&p.X, all)
	return &figure{[][]*plot.Plot{{p}}, rowsHeight(len(engines))}, nil
}

// workChart has a panel for each workload.
func workChart(r *Result, w *words) (*figure, error) {
	engines := with(r.Engines, func(e *EngineResult) bool { return len(e.Work) > 0 })
	if len(engines) == 0 {
		return nil, nil
	}
	var line []*plot.Plot
	for i, load := range r.Options.Workloads {
		names := titles(engines)
		if i > 0 {
			names = make([]string, len(engines))
		}
		p := rowPlot(names)
		p.Title.Text, p.X.Label.Text = w.workload[load], "ms"
		var all []float64
		for j, e := range engines {
			ms := millisOf(e.Times(load))
			if len(ms) == 0 {
				continue
			}
			all = append(all, ms...)
			if err := median(p, ms, float64(len(engines)-1-j), palette[i%len(palette)], shapes[i%len(shapes)]); err != nil {
				return nil, err
			}
		}
		if len(all) > 0 {
			logarithmic(&p.X, all)
			line = append(line, p)
		}
	}
	if len(line) == 0 {
		return nil, nil
	}
	return &figure{[][]*plot.Plot{line}, rowsHeight(len(engines)) + 16}, nil
}

// stack draws bars of several kinds, end to end.
func stack(names, kinds []string, values [][]float64, label string) (*figure, error) {
	p := rowPlot(names)
	p.X.Label.Text = label
	var below *plotter.BarChart
	for k, kind := range kinds {
		v := slices.Clone(values[k])
		slices.Reverse(v)
		b, err := plotter.NewBarChart(plotter.Values(v), 13)
		if err != nil {
			return nil, err
		}
		b.Horizontal, b.Color = true, palette[k%len(palette)]
		b.LineStyle = draw.LineStyle{Color: ink, Width: 0.4}
		if below != nil {
			b.StackOn(below)
		}
		below = b
		p.Add(b)
		p.Legend.Add(kind, b)
	}
	p.Y.Min, p.Y.Max = -0.6, float64(len(names))-0.4
	p.X.Min = 0
	p.X.Max *= 1.35 // the legend's place
	return &figure{[][]*plot.Plot{{p}}, max(rowsHeight(len(names)), 150)}, nil
}

const mib = 1 << 20

func memoryChart(r *Result, w *words) (*figure, error) {
	engines := with(r.Engines, func(e *EngineResult) bool { return len(e.Scale) > 0 })
	if len(engines) == 0 {
		return nil, nil
	}
	values := make([][]float64, 5)
	for _, e := range engines {
		m, n := e.Scale[0].Memory, float64(e.Scale[0].Instances)*mib
		for k, v := range []uint64{m.GuestRAM, m.Private, m.Shared, m.PageTables, m.Kernel} {
			values[k] = append(values[k], float64(v)/n)
		}
	}
	return stack(titles(engines), []string{w.guestRAM, w.private, w.shared, w.pageTables, w.kernelMem}, values, w.mib)
}

func diskChart(r *Result, w *words) (*figure, error) {
	engines := with(r.Engines, func(e *EngineResult) bool { return len(e.Disk) > 0 })
	if len(engines) == 0 {
		return nil, nil
	}
	kinds := []string{"engine", "kernel", "root"}
	values := make([][]float64, len(kinds))
	var names []string
	for k, kind := range kinds {
		names = append(names, w.diskKinds[kind])
		for _, e := range engines {
			sum := 0.0
			for _, d := range e.Disk {
				if d.Kind == kind {
					sum += float64(d.Bytes) / mib
				}
			}
			values[k] = append(values[k], sum)
		}
	}
	return stack(titles(engines), names, values, w.mib)
}
