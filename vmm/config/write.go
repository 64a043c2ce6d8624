package config

import (
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Describe is a machine's fields by name, as JSON and YAML have them: a text, a
// number, true, or a list.
func Describe(m *Machine, fields []Field) map[string]any {
	d := make(map[string]any)
	for _, f := range fields {
		if v := f.value(m); v != nil {
			d[f.Name] = v
		}
	}
	return d
}

// value is the field's value in m, nil if m has none.
func (f *Field) value(m *Machine) any {
	if f.Kind == Words {
		if m.Command == nil {
			return nil
		}
		return m.Command
	}
	var list []string
	for _, s := range m.Settings {
		if s.Flag == f.Name {
			list = append(list, s.Value)
		}
	}
	if len(list) == 0 {
		return nil
	}
	last := list[len(list)-1]
	switch f.Kind {
	case List:
		return list
	case Number:
		if n, err := strconv.Atoi(last); err == nil {
			return n
		}
	case Switch:
		return last == "true"
	}
	return last
}

// Write writes a machine as a file that Parse reads back as the same.
func Write(m *Machine, fields []Field) ([]byte, error) {
	doc := &yaml.Node{Kind: yaml.MappingNode}
	for i := range fields {
		f := &fields[i]
		v := f.value(m)
		if v == nil {
			continue
		}
		key, value := new(yaml.Node), new(yaml.Node)
		key.SetString(f.Name)
		if err := value.Encode(escaped(v)); err != nil {
			return nil, err
		}
		doc.Content = append(doc.Content, key, value)
	}
	if len(doc.Content) == 0 {
		return []byte("{}\n"), nil
	}
	return yaml.Marshal(doc)
}

// escaped is v with every $ doubled, since Parse replaces ${NAME}.
func escaped(v any) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "$", "$$")
	case []string:
		list := make([]string, len(v))
		for i, s := range v {
			list[i] = strings.ReplaceAll(s, "$", "$$")
		}
		return list
	}
	return v
}
