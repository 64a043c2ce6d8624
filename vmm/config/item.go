package config

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// item reads one value of a list: a text as the flag takes it, or a mapping. A
// network may be named by what the file calls it.
func (p *parser) item(f *Field, n *yaml.Node, where string) (string, bool) {
	n = p.real(n)
	if n.Kind == yaml.ScalarNode && f.Name == "net" {
		if named, ok := p.networks[n.Value]; ok {
			n = p.real(named)
		}
	}
	if n.Kind != yaml.MappingNode {
		v, ok := p.text(n, where)
		return f.resolve(p.dir, v), ok
	}
	if f.Item == nil {
		p.mistake(n, where, "want one value")
		return "", false
	}
	pairs, ok := p.mapping(n, where)
	if !ok {
		return "", false
	}
	return p.build(f, pairs, n, where)
}

// build writes a mapping as the flag's text.
func (p *parser) build(f *Field, pairs []pair, n *yaml.Node, where string) (string, bool) {
	before := len(p.mistakes)
	values := make(map[string]string)
	for _, e := range pairs {
		if f.Name == "net" && e.key.Value == "network" {
			p.nameNetwork(values, e, where)
			continue
		}
		if !f.Item.has(e.key.Value) {
			p.mistake(e.key, join(where, e.key.Value), "there is no such field: there is %s", strings.Join(f.Item.keys(), ", "))
			continue
		}
		if v, ok := p.text(e.value, join(where, e.key.Value)); ok {
			values[e.key.Value] = v
		}
	}
	text, what := f.Item.write(values)
	if what != "" {
		p.mistake(n, where, "%s", what)
	}
	return f.resolve(p.dir, text), len(p.mistakes) == before
}

// nameNetwork fills in what a network of the file says.
func (p *parser) nameNetwork(values map[string]string, e pair, where string) {
	at := join(where, "network")
	named, ok := p.networks[e.value.Value]
	if !ok {
		p.mistake(e.value, at, "the file has no network %q: describe it below networks", e.value.Value)
		return
	}
	pairs, ok := p.mapping(named, "networks."+e.value.Value)
	if !ok {
		return
	}
	for _, e := range pairs {
		if _, there := values[e.key.Value]; there {
			continue
		}
		if v, ok := p.text(e.value, at); ok {
			values[e.key.Value] = v
		}
	}
}

func (i *Item) keys() []string { return slices.Concat(i.First, i.Bare, i.Valued) }

func (i *Item) has(key string) bool { return slices.Contains(i.keys(), key) }

// write puts the values into a flag's text. what says what is wrong with them.
func (i *Item) write(values map[string]string) (text, what string) {
	escape := func(s string) string { return s }
	if i.Comma == "," {
		escape = func(s string) string { return strings.ReplaceAll(s, ",", ",,") }
	}
	var first []string
	for _, k := range i.First {
		if v, ok := values[k]; ok {
			first = append(first, escape(v))
		}
	}
	parts := []string{strings.Join(first, i.Between)}
	for _, k := range i.Bare {
		switch values[k] {
		case "true":
			parts = append(parts, k)
		case "false", "":
		default:
			return "", fmt.Sprintf("%s is %q: want true or false", k, values[k])
		}
	}
	for _, k := range i.Valued {
		if v, ok := values[k]; ok {
			parts = append(parts, k+"="+escape(v))
		}
	}
	if parts[0] == "" {
		parts = parts[1:]
	}
	return strings.Join(parts, i.Comma), ""
}
