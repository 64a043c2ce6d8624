package compare

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
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

// kindStyles tell the kinds of engines apart.
var kindStyles = map[Kind]draw.GlyphStyle{
	KindProcess:   {Color: palette[2], Radius: 4, Shape: draw.PyramidGlyph{}},
	KindContainer: {Color: palette[0], Radius: 3.6, Shape: draw.CircleGlyph{}},
	KindMachine:   {Color: palette[3], Radius: 3.4, Shape: draw.BoxGlyph{}},
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

func sans(size vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
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

// median draws the median of x milliseconds with its interval at the height y,
// and writes it beside the largest of them.
func median(p *plot.Plot, x []float64, y float64, g draw.GlyphStyle) error {
	s := Summarize(x)
	line, err := plotter.NewLine(plotter.XYs{{X: s.Low, Y: y}, {X: s.High, Y: y}})
	if err != nil {
		return err
	}
	line.Color, line.Width = g.Color, 2.2
	dot, err := plotter.NewScatter(plotter.XYs{{X: s.Median, Y: y}})
	if err != nil {
		return err
	}
	dot.GlyphStyle = g
	p.Add(line, dot)
	return addLabel(p, s.Max, y, duration(s.Median*1e6))
}

// addLabel writes s to the right of a point.
func addLabel(p *plot.Plot, x, y float64, s string) error {
	l, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: x, Y: y}}, Labels: []string{s}})
	if err != nil {
		return err
	}
	l.Offset = vg.Point{X: 6}
	l.TextStyle[0].Font, l.TextStyle[0].Color, l.TextStyle[0].YAlign = sans(9), ink, text.YCenter
	p.Add(l)
	return nil
}

// kindLegend names the kinds that are among the engines.
func kindLegend(p *plot.Plot, engines []EngineResult, w *words) error {
	for _, k := range []Kind{KindProcess, KindContainer, KindMachine} {
		if !slices.ContainsFunc(engines, func(e EngineResult) bool { return e.Kind == k }) {
			continue
		}
		s, err := plotter.NewScatter(plotter.XYs{{}})
		if err != nil {
			return err
		}
		s.GlyphStyle = kindStyles[k]
		p.Legend.Add(w.kinds[k], s)
	}
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
			xy = append(xy, plotter.XY{X: v, Y: y - 0.24 + 0.08*float64(j%3-1)})
		}
		dots, err := plotter.NewScatter(xy)
		if err != nil {
			return nil, err
		}
		g := kindStyles[e.Kind]
		dots.GlyphStyle = draw.GlyphStyle{Color: g.Color, Radius: 1.3, Shape: draw.CircleGlyph{}}
		p.Add(dots)
		if err := median(p, ms, y+0.1, g); err != nil {
			return nil, err
		}
	}
	logarithmic(&p.X, all, 5)
	if err := kindLegend(p, engines, w); err != nil {
		return nil, err
	}
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
			if err := median(p, ms, float64(len(engines)-1-j), kindStyles[e.Kind]); err != nil {
				return nil, err
			}
		}
		if len(all) > 0 {
			logarithmic(&p.X, all, 40)
			p.X.Tick.Marker = decades{most: 4} // a panel is narrow
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
	for i := range names {
		total := 0.0
		for _, v := range values {
			total += v[i]
		}
		if err := addLabel(p, total, float64(len(names)-1-i), bytesText(uint64(total*mib))); err != nil {
			return nil, err
		}
	}
	p.Y.Min, p.Y.Max = -0.6, float64(len(names))-0.4
	p.X.Min = 0
	p.X.Max *= 1.4 // the legend's place
	p.X.Tick.Marker = plainTicks{}
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
