package compare

import (
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// cpuChart has a panel for each engine, above each other with one time axis.
func cpuChart(r *Result, w *words) (*figure, error) {
	engines := with(r.Engines, func(e *EngineResult) bool { return len(e.CPU) > 1 })
	if len(engines) == 0 {
		return nil, nil
	}
	from, to, most := -0.5, 0.0, 1.0
	for _, e := range engines {
		to = max(to, e.CPU[len(e.CPU)-1].At/1e9)
		for _, p := range e.CPU {
			most = max(most, p.Host+p.Guest)
		}
	}
	var column [][]*plot.Plot
	for _, e := range engines {
		p, err := usePlot(&e, from, to, most)
		if err != nil {
			return nil, err
		}
		p.HideX()
		column = append(column, []*plot.Plot{p})
	}
	axis := newPlot()
	axis.HideY()
	axis.X.Label.Text, axis.X.Tick.Marker = w.seconds, wholeTicks(to)
	axis.X.Min, axis.X.Max = from, to
	column = append(column, []*plot.Plot{axis})
	return &figure{column, vg.Length(len(column)) * 44}, nil
}

// wholeTicks marks 0, 1, 2 … to, or fewer whole numbers where those are many.
func wholeTicks(to float64) (t plot.ConstantTicks) {
	for v := 0.0; v <= to; v += max(1, math.Ceil(to/20)) {
		t = append(t, plot.Tick{Value: v, Label: trim(v)})
	}
	return t
}

// usePlot is the panel of an engine. Its name stands in it, left above the line.
func usePlot(e *EngineResult, from, to, most float64) (*plot.Plot, error) {
	p := newPlot()
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = faint, color.Transparent
	p.Add(g)
	total, guest := useLines(e.CPU, from)
	if err := addLine(p, total, kindStyles[e.Kind].Color, nil, true); err != nil {
		return nil, err
	}
	if guest != nil {
		if err := addLine(p, guest, ink, []vg.Length{3, 2}, false); err != nil {
			return nil, err
		}
	}
	most *= 1.4 // the name has room above
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = from, to, 0, most
	name, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: from, Y: most}}, Labels: []string{e.Title}})
	if err != nil {
		return nil, err
	}
	name.TextStyle[0].Font, name.TextStyle[0].Color, name.TextStyle[0].YAlign = sans(9), ink, text.YTop
	name.Offset = vg.Point{X: 4}
	p.Add(name)
	p.Y.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: 1, Label: "1"}}
	p.X.Tick.Marker = wholeTicks(to)
	return p, nil
}

// useLines are all of the CPU use and the guest's part, the latter nil if there
// is none, from the given second on.
func useLines(points []CPUPoint, from float64) (total, guest plotter.XYs) {
	some := false
	for _, c := range points {
		at := c.At / 1e9
		if at < from {
			continue
		}
		total = append(total, plotter.XY{X: at, Y: c.Host + c.Guest})
		guest = append(guest, plotter.XY{X: at, Y: c.Guest})
		some = some || c.Guest > 0
	}
	if !some {
		guest = nil
	}
	return total, guest
}

func addLine(p *plot.Plot, xy plotter.XYs, c color.Color, dash []vg.Length, fill bool) error {
	if len(xy) == 0 {
		return nil
	}
	l, err := plotter.NewLine(xy)
	if err != nil {
		return err
	}
	l.StepStyle = plotter.PreStep
	l.LineStyle = draw.LineStyle{Color: c, Width: 1.2, Dashes: dash}
	if r, g, b, _ := c.RGBA(); fill {
		l.FillColor = color.NRGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 0x40}
	}
	p.Add(l)
	return nil
}

// densityChart has start time and memory over the number of instances.
func densityChart(r *Result, w *words) (*figure, error) {
	engines := with(r.Engines, func(e *EngineResult) bool { return len(e.Scale) > 0 })
	if len(engines) == 0 {
		return nil, nil
	}
	start, memory := newPlot(), newPlot()
	start.Title.Text, start.Y.Label.Text = w.start, "ms"
	memory.Title.Text, memory.Y.Label.Text = w.memory, w.mib
	var starts, sizes, counts []float64
	for i, e := range engines {
		var a, b plotter.XYs
		for _, p := range e.Scale {
			n := float64(p.Instances)
			counts = append(counts, n)
			ms := max(Summarize(p.Start).Median, 100) / 1e6
			size := math.Max(float64(p.Memory.Total())/mib, 0.01)
			a, b = append(a, plotter.XY{X: n, Y: ms}), append(b, plotter.XY{X: n, Y: size})
			starts, sizes = append(starts, ms), append(sizes, size)
		}
		if err := addPoints(start, a, i, ""); err != nil {
			return nil, err
		}
		if err := addPoints(memory, b, i, e.Title); err != nil {
			return nil, err
		}
	}
	for _, p := range []*plot.Plot{start, memory} {
		p.X.Label.Text = w.instances
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, countTicks(counts)
		p.X.Min, p.X.Max = slices.Min(counts), max(slices.Max(counts), 2*slices.Min(counts))
	}
	logarithmic(&start.Y, starts, 1.5)
	logarithmic(&memory.Y, sizes, 1.5)
	// The legend stands to the right of the lines.
	names := newPlot()
	names.HideAxes()
	names.Legend, memory.Legend = memory.Legend, names.Legend
	names.Legend.Left = true
	return &figure{[][]*plot.Plot{{start, memory, names}}, max(300, vg.Length(len(engines))*17+80)}, nil
}

func addPoints(p *plot.Plot, xy plotter.XYs, i int, name string) error {
	l, s, err := plotter.NewLinePoints(xy)
	if err != nil {
		return err
	}
	c := palette[i%len(palette)]
	l.LineStyle = draw.LineStyle{Color: c, Width: 1.2, Dashes: dashes[i/len(palette)%len(dashes)]}
	s.GlyphStyle = draw.GlyphStyle{Color: c, Radius: 3, Shape: shapes[i%len(shapes)]}
	p.Add(l, s)
	if name != "" {
		p.Legend.Add(name, l, s)
	}
	return nil
}

// countTicks marks the numbers of instances that were measured.
func countTicks(counts []float64) plot.ConstantTicks {
	var t plot.ConstantTicks
	seen := make(map[float64]bool)
	for _, n := range counts {
		if !seen[n] {
			seen[n] = true
			t = append(t, plot.Tick{Value: n, Label: trim(n)})
		}
	}
	return t
}
