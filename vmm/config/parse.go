package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Limits of a file: nobody writes more by hand, and YAML's aliases make a few
// lines into any number of nodes.
const (
	maxFile  = 1 << 20
	maxNodes = 100_000
)

// Parse reads a file. dir is the folder that relative paths start from, lookup
// an environment (os.LookupEnv). The error is a Mistakes, or what yaml says
// about a text that is no YAML.
func Parse(data []byte, fields []Field, dir string, lookup func(string) (string, bool)) (*File, error) {
	p := &parser{fields: make(map[string]*Field), dir: dir, lookup: lookup, networks: make(map[string]*yaml.Node)}
	for i := range fields {
		p.fields[fields[i].Name] = &fields[i]
	}
	root, err := decode(data)
	if err != nil {
		return nil, err
	}
	f := p.file(root)
	if len(p.mistakes) > 0 {
		slices.SortStableFunc(p.mistakes, func(a, b Mistake) int { return a.Line - b.Line })
		return nil, p.mistakes
	}
	return f, nil
}

func decode(data []byte) (*yaml.Node, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("the file has more than %d bytes", maxFile)
	}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if err == io.EOF {
			return nil, Mistakes{{Line: 1, Text: "the file is empty"}}
		}
		return nil, syntaxMistake(err)
	}
	var more yaml.Node
	if err := dec.Decode(&more); err != io.EOF {
		return nil, Mistakes{{Line: max(1, more.Line), Text: "a second document: put several machines below the key machines"}}
	}
	return doc.Content[0], nil
}

// syntaxMistake takes the line out of yaml's message.
func syntaxMistake(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, what, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				return Mistakes{{Line: n, Text: what}}
			}
		}
	}
	return Mistakes{{Line: 1, Text: text}}
}

type parser struct {
	fields   map[string]*Field
	dir      string
	lookup   func(string) (string, bool)
	networks map[string]*yaml.Node
	mistakes Mistakes
	nodes    int
}

func (p *parser) mistake(n *yaml.Node, where, format string, args ...any) {
	m := Mistake{Where: where, Text: fmt.Sprintf(format, args...)}
	if n != nil {
		m.Line, m.Column = n.Line, n.Column
	}
	p.mistakes = append(p.mistakes, m)
}

func (p *parser) file(n *yaml.Node) *File {
	f := new(File)
	pairs, ok := p.mapping(n, "")
	if !ok {
		return f
	}
	machines, several := find(pairs, "machines")
	if networks, ok := find(pairs, "networks"); ok {
		p.readNetworks(networks.value)
	}
	if !several {
		m := p.machine(n, pairs, "", "networks")
		f.Machines = []Machine{m}
		return f
	}
	f.Several = true
	for _, e := range pairs {
		if e.key.Value != "machines" && e.key.Value != "networks" {
			p.mistake(e.key, e.key.Value, "beside machines there is only networks: put this below a machine")
		}
	}
	list, ok := p.mapping(machines.value, "machines")
	if ok && len(list) == 0 {
		p.mistake(machines.key, "machines", "there is none")
	}
	for _, e := range list {
		where := "machines." + e.key.Value
		if pairs, ok := p.mapping(e.value, where); ok {
			m := p.machine(e.key, pairs, where+".", "")
			if m.Name != "" && m.Name != e.key.Value {
				p.mistake(e.key, where, "its name is %q: leave the field name out", m.Name)
			}
			m.Name = e.key.Value
			m.Settings = append([]Setting{{Flag: "name", Value: m.Name, Where: where, Line: e.key.Line, Column: e.key.Column}}, m.Settings...)
			f.Machines = append(f.Machines, m)
		}
	}
	return f
}

// readNetworks keeps the networks that machines name.
func (p *parser) readNetworks(n *yaml.Node) {
	pairs, _ := p.mapping(n, "networks")
	for _, e := range pairs {
		p.networks[e.key.Value] = e.value
	}
}

// pair is an entry of a mapping.
type pair struct{ key, value *yaml.Node }

func find(pairs []pair, key string) (pair, bool) {
	for _, e := range pairs {
		if e.key.Value == key {
			return e, true
		}
	}
	return pair{}, false
}

// mapping returns a mapping's entries, with those that "<<" brings in behind.
func (p *parser) mapping(n *yaml.Node, where string) ([]pair, bool) {
	return p.mappingWithin(n, where, 0)
}

func (p *parser) mappingWithin(n *yaml.Node, where string, depth int) ([]pair, bool) {
	n = p.real(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil, true
	}
	if n.Kind != yaml.MappingNode || depth > 16 {
		p.mistake(n, where, "want fields, each with a value: NAME: VALUE")
		return nil, false
	}
	var own, merged []pair
	seen := make(map[string]*yaml.Node)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Tag == "!!merge" {
			more, _ := p.mappingWithin(v, where, depth+1)
			merged = append(merged, more...)
			continue
		}
		if first := seen[k.Value]; first != nil {
			p.mistake(k, join(where, k.Value), "is there twice, first in line %d", first.Line)
			continue
		}
		seen[k.Value] = k
		own = append(own, pair{k, v})
	}
	for _, e := range merged {
		if seen[e.key.Value] == nil {
			seen[e.key.Value] = e.key
			own = append(own, e)
		}
	}
	return own, true
}

func join(where, key string) string {
	if where == "" {
		return key
	}
	return where + "." + key
}

// real follows an alias, and counts.
func (p *parser) real(n *yaml.Node) *yaml.Node {
	if p.nodes++; p.nodes > maxNodes {
		return &yaml.Node{Kind: yaml.ScalarNode, Line: n.Line, Column: n.Column}
	}
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// machine reads a machine's fields. prefix goes before their names in messages.
func (p *parser) machine(at *yaml.Node, pairs []pair, prefix, except string) Machine {
	m := Machine{Line: at.Line}
	for _, e := range pairs {
		if e.key.Value == except && except != "" {
			continue
		}
		f := p.fields[e.key.Value]
		if f == nil {
			p.mistake(e.key, prefix+e.key.Value, "there is no such field%s", p.suggestion(e.key.Value))
			continue
		}
		p.field(&m, f, e, prefix+f.Name)
	}
	return m
}

func (p *parser) field(m *Machine, f *Field, e pair, where string) {
	set := func(n *yaml.Node, where, value string) {
		m.Settings = append(m.Settings, Setting{Flag: f.Name, Value: value, Where: where, Line: n.Line, Column: n.Column})
	}
	switch f.Kind {
	case Words:
		m.Command = p.words(e.value, where)
	case List:
		for i, n := range p.items(e.value) {
			at := fmt.Sprintf("%s[%d]", where, i)
			if v, ok := p.item(f, n, at); ok {
				set(n, at, v)
			}
		}
	default:
		if v, ok := p.scalar(f, e.value, where); ok {
			set(e.value, where, v)
			if f.Name == "name" {
				m.Name = v
			}
		}
	}
}

// items are a list's values; a value alone is a list of one.
func (p *parser) items(n *yaml.Node) []*yaml.Node {
	switch n = p.real(n); {
	case n.Kind == yaml.SequenceNode:
		return n.Content
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil
	}
	return []*yaml.Node{n}
}

// scalar reads one value as a flag would be given it.
func (p *parser) scalar(f *Field, n *yaml.Node, where string) (string, bool) {
	v, ok := p.text(n, where)
	if !ok {
		return "", false
	}
	switch f.Kind {
	case Number:
		if _, err := strconv.Atoi(v); err != nil {
			p.mistake(n, where, "%q is no whole number", v)
			return "", false
		}
	case Switch:
		if v != "true" && v != "false" {
			p.mistake(n, where, "%q: want true or false", v)
			return "", false
		}
	}
	if len(f.Enum) > 0 && !slices.Contains(f.Enum, v) {
		p.mistake(n, where, "%q: want one of %s", v, strings.Join(f.Enum, ", "))
		return "", false
	}
	return f.resolve(p.dir, v), true
}

// text is a scalar with its ${NAME}s replaced.
func (p *parser) text(n *yaml.Node, where string) (string, bool) {
	n = p.real(n)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		p.mistake(n, where, "want one value")
		return "", false
	}
	v, err := expand(n.Value, p.lookup)
	if err != nil {
		p.mistake(n, where, "%v", err)
		return "", false
	}
	return v, true
}

func (p *parser) words(n *yaml.Node, where string) []string {
	words := []string{}
	if n = p.real(n); n.Kind == yaml.ScalarNode {
		if v, ok := p.text(n, where); ok {
			words = strings.Fields(v)
		}
	} else {
		for i, w := range p.items(n) {
			if v, ok := p.text(w, fmt.Sprintf("%s[%d]", where, i)); ok {
				words = append(words, v)
			}
		}
	}
	if len(words) == 0 {
		p.mistake(n, where, "want a list of words, such as [ls, -l]")
	}
	return words
}

// suggestion is the known field that is most like name.
func (p *parser) suggestion(name string) string {
	best, least := "", 3
	for _, k := range slices.Sorted(maps.Keys(p.fields)) {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ": vitrine config schema lists them"
	}
	return fmt.Sprintf(": is %s meant?", best)
}

// distance is how many letters must be changed, added or dropped (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

var errUnclosed = errors.New("${ without }")

// expand replaces ${NAME} and ${NAME:-DEFAULT} by the environment; $$ is $.
func expand(s string, lookup func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String(), nil
		}
		b.WriteString(s[:i])
		switch s = s[i:]; s[1] {
		case '$':
			b.WriteByte('$')
			s = s[2:]
		case '{':
			end := strings.IndexByte(s, '}')
			if end < 0 {
				return "", errUnclosed
			}
			name, fallback, hasFallback := strings.Cut(s[2:end], ":-")
			v, ok := lookup(name)
			switch {
			case (!ok || v == "") && hasFallback:
				v = fallback
			case !ok:
				return "", fmt.Errorf("the environment has no %s: set it, or write ${%s:-DEFAULT}", name, name)
			}
			b.WriteString(v)
			s = s[end+1:]
		default:
			b.WriteByte('$')
			s = s[1:]
		}
	}
}
