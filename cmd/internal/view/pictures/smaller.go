package main

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"slices"
)

// smaller is a PNG with 256 colours, those that it has most of: pages have few,
// but for the edges of letters.
func smaller(p []byte) ([]byte, error) {
	full, err := png.Decode(bytes.NewReader(p))
	if err != nil {
		return nil, err
	}
	count := make(map[color.RGBA]int)
	b := full.Bounds()
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(full.At(x, y)).(color.RGBA) }
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	colors := make([]color.RGBA, 0, len(count))
	for c := range count {
		colors = append(colors, c)
	}
	slices.SortFunc(colors, func(a, b color.RGBA) int { return count[b] - count[a] })
	palette := spread(colors, 256)
	nearest := make(map[color.RGBA]uint8, len(colors))
	for _, c := range colors {
		nearest[c] = uint8(palette.Index(c))
	}
	small := image.NewPaletted(b, palette)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			small.SetColorIndex(x, y, nearest[at(x, y)])
		}
	}
	var out bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small)
	return out.Bytes(), err
}

// spread takes n colours, the most frequent first, but none that is close to
// one that was taken while there are others.
func spread(colors []color.RGBA, n int) color.Palette {
	var taken color.Palette
	for apart := 12; len(taken) < min(n, len(colors)) && apart >= 0; apart -= 4 {
		for _, c := range colors {
			if len(taken) == n {
				break
			}
			if far(taken, c, apart) {
				taken = append(taken, c)
			}
		}
	}
	return taken
}

func far(p color.Palette, c color.RGBA, apart int) bool {
	for _, o := range p {
		t := o.(color.RGBA)
		d := abs(int(t.R)-int(c.R)) + abs(int(t.G)-int(c.G)) + abs(int(t.B)-int(c.B))
		if d <= apart {
			return false
		}
	}
	return true
}

func abs(n int) int { return max(n, -n) }
