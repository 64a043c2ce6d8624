// Package config reads machine files: YAML with the same fields as the flags of
// vitrine run, one machine in a file or several with the networks that join
// them. It knows the fields from the flags (Field) and leaves what their values
// mean to whoever parses flags, so that a file and a command line cannot differ.
package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Kind is what a field holds.
type Kind uint8

// Kinds of field.
const (
	Text   Kind = iota // one value
	Number             // one whole number
	Switch             // true or false
	List               // any number of values, each a text or, with Item, a mapping
	Words              // a command: a list of words, or one text that is cut at spaces
)

// Field is a field of a machine: a flag's name, and what it takes.
type Field struct {
	Name  string
	Kind  Kind
	Doc   string
	Enum  []string // the only values, where that is so
	Path  bool     // the value is, or begins with, a path, relative to the file's folder
	Words []string // values that are no paths, where Path is set
	Item  *Item    // how a mapping in a List becomes a flag's text
}

// Item says how {file: a.img, ro: true, id: data} becomes "a.img,ro,id=data".
type Item struct {
	First   []string // the parts before the settings, in order, joined by Between
	Between string
	Bare    []string // settings without a value: true or false
	Valued  []string // settings with one
	Comma   string   // before each setting
}

// Setting is a flag's value that a file gives.
type Setting struct {
	Flag, Value  string
	Where        string // such as disk[0]
	Line, Column int
}

// Machine is a machine of a file.
type Machine struct {
	Name     string // "" where a file has one machine without a name
	Settings []Setting
	Command  []string // nil: none
	Line     int
}

// File is a machine file.
type File struct {
	Machines []Machine // in the file's order
	Several  bool      // it has the key machines
}

// Mistake is something wrong at a place in a file.
type Mistake struct {
	Line, Column int
	Where        string // the field, such as machines.web.disk[0]; "" for the file
	Text         string
}

func (m Mistake) Error() string {
	where := ""
	if m.Where != "" {
		where = m.Where + ": "
	}
	if m.Line == 0 {
		return where + m.Text
	}
	return fmt.Sprintf("line %d: %s%s", m.Line, where, m.Text)
}

// Mistakes are all that was found, in the order of the lines.
type Mistakes []Mistake

func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i := range m {
		lines[i] = m[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Find returns the machine called name; any if name is "" and there is one.
func (f *File) Find(name string) (*Machine, error) {
	var names []string
	for i := range f.Machines {
		m := &f.Machines[i]
		if m.Name == name || name == "" && len(f.Machines) == 1 {
			return m, nil
		}
		names = append(names, m.Name)
	}
	if name == "" {
		return nil, fmt.Errorf("the file has several machines: name one with --machine, or start all with vitrine up: %s", strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("the file has no machine %q: there is %s", name, strings.Join(names, ", "))
}

// resolve makes a relative path one from the file's folder.
func (f *Field) resolve(dir, value string) string {
	if !f.Path || value == "" || filepath.IsAbs(value) || slices.Contains(f.Words, value) {
		return value
	}
	// A path in front of settings has its commas doubled.
	if f.Item != nil && f.Item.Comma == "," {
		dir = strings.ReplaceAll(dir, ",", ",,")
	}
	return strings.TrimSuffix(dir, "/") + "/" + strings.TrimPrefix(value, "./")
}

// Absolute makes the path in a flag's value absolute, from the current folder.
func (f *Field) Absolute(value string) string {
	dir, err := filepath.Abs(".")
	if err != nil {
		return value
	}
	return f.resolve(dir, value)
}
