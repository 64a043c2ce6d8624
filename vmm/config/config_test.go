package config

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

var testFields = []Field{
	{Name: "name", Kind: Text},
	{Name: "kernel", Kind: Text, Path: true, Words: []string{"lean", "full"}},
	{Name: "memory", Kind: Text},
	{Name: "cpus", Kind: Number},
	{Name: "accel", Kind: Text, Enum: []string{"auto", "kvm", "soft"}},
	{Name: "balloon", Kind: Switch},
	{Name: "disk", Kind: List, Path: true, Item: &Item{First: []string{"file"}, Bare: []string{"ro"}, Valued: []string{"id", "iops"}, Comma: ","}},
	{Name: "net", Kind: List, Item: &Item{First: []string{"mode"}, Valued: []string{"group", "bridge", "mac"}, Comma: ","}},
	{Name: "share", Kind: List, Path: true, Item: &Item{First: []string{"dir", "tag"}, Between: ":", Bare: []string{"ro"}, Comma: ":"}},
	{Name: "publish", Kind: List},
	{Name: "command", Kind: Words},
}

func env(name string) (string, bool) {
	v, ok := map[string]string{"SIZE": "512M", "EMPTY": ""}[name]
	return v, ok
}

func parse(text string) (*File, error) { return Parse([]byte(text), testFields, "/srv", env) }

// flags are a machine's settings as a command line.
func flags(m Machine) string {
	var b strings.Builder
	for _, s := range m.Settings {
		b.WriteString(" --" + s.Flag + " " + s.Value)
	}
	if m.Command != nil {
		b.WriteString(" -- " + strings.Join(m.Command, "|"))
	}
	return strings.TrimSpace(b.String())
}

func TestFieldsBecomeFlags(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"memory: 256M\ncpus: 2\nballoon: true", "--memory 256M --cpus 2 --balloon true"},
		{"kernel: full", "--kernel full"},
		{"kernel: ./vmlinux", "--kernel /srv/vmlinux"},
		{"kernel: /boot/vmlinuz", "--kernel /boot/vmlinuz"},
		{"memory: ${SIZE}", "--memory 512M"},
		{"memory: ${NONE:-1G}\nname: a$$b", "--memory 1G --name a$b"},
		{"memory: ${EMPTY:-1G}", "--memory 1G"},
		{"disk: a.img,ro", "--disk /srv/a.img,ro"},
		{"disk: [a.img, /b.img]", "--disk /srv/a.img --disk /b.img"},
		{"disk:\n- {file: 'a,b.img', ro: true, id: data, iops: 500}", "--disk /srv/a,,b.img,ro,id=data,iops=500"},
		{"disk: {file: a.img, ro: false}", "--disk /srv/a.img"},
		{"share:\n- {dir: data, tag: files, ro: true}\n- src:code", "--share /srv/data:files:ro --share /srv/src:code"},
		{"publish: [8080:80, '22']", "--publish 8080:80 --publish 22"},
		{"net: {bridge: br0}", "--net bridge=br0"},
		{"command: [sh, -c, 'a b']", "-- sh|-c|a b"},
		{"command: uname -a", "-- uname|-a"},
		{"net:", ""},
		{"{}", ""},
	} {
		f, err := parse(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if got := flags(f.Machines[0]); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.text, got, c.want)
		}
	}
}

func TestSeveralMachines(t *testing.T) {
	f, err := parse(`
networks:
  lan: {mode: user, group: lan}
  short: user,group=s
machines:
  web: &web
    memory: 256M
    net: [lan, {network: lan, mac: "52:54:00:00:00:01"}, short, none]
  db:
    <<: *web
    memory: 1G
`)
	if err != nil {
		t.Fatal(err)
	}
	nets := " --net user,group=lan --net user,group=lan,mac=52:54:00:00:00:01 --net user,group=s --net none"
	if len(f.Machines) != 2 || flags(f.Machines[0]) != "--name web --memory 256M"+nets || flags(f.Machines[1]) != "--name db --memory 1G"+nets {
		t.Fatalf("%+v", f)
	}
	if m, err := f.Find("db"); err != nil || m.Name != "db" {
		t.Error(m, err)
	}
	for _, name := range []string{"", "cache"} {
		if _, err := f.Find(name); err == nil || !strings.Contains(err.Error(), "web, db") {
			t.Errorf("find %q: %v", name, err)
		}
	}
}

func TestMistakesNameLineAndField(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"memory: 1G\nmemroy: 2G", "line 2: memroy: there is no such field: is memory meant?"},
		{"zzz: 1", "line 1: zzz: there is no such field: vitrine config schema lists them"},
		{"a: 1\nname: x\nname: y", "line 3: name: is there twice, first in line 2"},
		{"cpus: many", `line 1: cpus: "many" is no whole number`},
		{"\n\naccel: tcg", `line 3: accel: "tcg": want one of auto, kvm, soft`},
		{"balloon: maybe", `line 1: balloon: "maybe": want true or false`},
		{"memory: [1, 2]", "line 1: memory: want one value"},
		{"memory: ${NONE}", "the environment has no NONE"},
		{"memory: ${SIZE", "${ without }"},
		{"disk:\n- a.img\n- {file: b.img, size: 3}", "line 3: disk[1].size: there is no such field: there is file, ro, id, iops"},
		{"disk: {file: a, ro: perhaps}", `line 1: disk[0]: ro is "perhaps"`},
		{"publish: {a: 1}", "line 1: publish[0]: want one value"},
		{"command: []", "line 1: command: want a list of words"},
		{"net: {network: lan}", `line 1: net[0].network: the file has no network "lan"`},
		{"machines:\n  web:\n    cpus: x", `line 3: machines.web.cpus: "x" is no whole number`},
		{"machines: {web: {}}\nmemory: 1G", "line 2: memory: beside machines there is only networks"},
		{"machines: {}", "line 1: machines: there is none"},
		{"machines:\n  web: {name: db}", `line 2: machines.web: its name is "db"`},
		{"- a", "line 1: want fields"},
		{"a: b: c", "line 1: mapping values are not allowed"},
		{"", "line 1: the file is empty"},
		{"{}\n---\n{}", "a second document"},
	} {
		_, err := parse(c.text)
		var mistakes Mistakes
		if !errors.As(err, &mistakes) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestAllMistakesAreNamed(t *testing.T) {
	_, err := parse("cpus: x\nfoo: 1\nballoon: 3")
	var m Mistakes
	if !errors.As(err, &m) || len(m) != 3 || m[0].Line != 1 || m[1].Line != 2 || m[2].Line != 3 {
		t.Fatalf("%v", err)
	}
}

func TestWrittenFilesReadBack(t *testing.T) {
	m := Machine{
		Settings: []Setting{{Flag: "name", Value: "on"}, {Flag: "cpus", Value: "3"}, {Flag: "memory", Value: "1_000"}, {Flag: "balloon", Value: "true"},
			{Flag: "disk", Value: "/a b,,c.img,ro"}, {Flag: "disk", Value: "/${x}"}},
		Command: []string{"echo", "$HOME", "yes", "# no comment"},
	}
	b, err := Write(&m, testFields)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parse(string(b))
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if got, want := Describe(&f.Machines[0], testFields), Describe(&m, testFields); !reflect.DeepEqual(got, want) {
		t.Fatalf("\n got %v\nwant %v\n%s", got, want, b)
	}
	if b, err := Write(&Machine{}, testFields); err != nil || string(b) != "{}\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestSchemaKnowsEveryField(t *testing.T) {
	b, err := json.Marshal(Schema(testFields))
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Defs map[string]struct {
			Properties map[string]any `json:"properties"`
			Additional any            `json:"additionalProperties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	m := s.Defs["machine"]
	if len(m.Properties) != len(testFields) || m.Additional != false {
		t.Errorf("%+v", m)
	}
}

// FuzzParse: whatever a file holds, it is read or refused.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"memory: 1G", "machines:\n  a: &x {disk: [b]}\n  c: *x", "a: &a [*a]", "<<: {<<: {memory: 1}}", "net: [lan]\nnetworks: {lan: user}",
		"a: &a {<<: *a}", "networks: {a: a}\nnet: a", "memory: ${A:-${B}}", "? [a]\n: b", "!!binary x: y",
		"networks: {a: b, b: a}\nmachines: {m: {net: a}}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse(b, testFields, "/srv", env)
		if (file == nil) == (err == nil) {
			t.Fatalf("%v, %v", file, err)
		}
	})
}
