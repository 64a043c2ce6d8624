// Command pictures takes the screenshots of vitrine view that the documents
// show: it starts a machine on the software CPU, has it do something, and looks
// at it with a headless Chromium.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vitrine-vmm/vitrine/cmd/internal/view/chrome"
)

func main() {
	program := flag.String("vitrine", "bin/vitrine", "the program")
	out := flag.String("out", "docs/pictures", "the folder for the pictures")
	flag.Parse()
	if err := run(*program, *out); err != nil {
		log.Fatal(err)
	}
}

// patience is how long all of it may take.
const patience = 3 * time.Minute

// Size of the pictures.
const width, height = 1480, 960

type studio struct {
	program, out string
	env          []string
	browser      *chrome.Browser
}

func run(program, out string) (err error) {
	path := chrome.Find()
	if path == "" {
		return errors.New("there is no chromium in PATH")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	state, err := os.MkdirTemp("", "vitrine-pictures-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	s := &studio{program: program, out: out, env: append(os.Environ(), "VITRINE_STATE="+state)}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"run", "--detach", "--accel", "soft", "--name", "web", "--memory", "128M", "--cpus", "2"},
		{"run", "--detach", "--accel", "soft", "--name", "db", "--memory", "256M"},
		{"run", "--detach", "--accel", "soft", "--name", "ended", "--memory", "96M", "--", "sleep", "0"},
	} {
		if _, err := s.vitrine(ctx, args...); err != nil {
			return err
		}
		defer s.vitrine(context.Background(), "kill", args[5])
	}
	url, stop, err := s.view(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if s.browser, err = chrome.Start(ctx, path, width, height); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.browser.Close()) }()
	if err := s.take(ctx, url); err != nil {
		return err
	}
	if wrong := s.browser.Wrong(); len(wrong) > 0 {
		return fmt.Errorf("the page has errors: %s", strings.Join(wrong[:min(len(wrong), 5)], "; "))
	}
	return nil
}

// vitrine runs the program.
func (s *studio) vitrine(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Env = s.env
	b, err := cmd.CombinedOutput()
	if err != nil {
		return b, fmt.Errorf("vitrine %v: %w: %s", args, err, b)
	}
	return b, nil
}

// view starts the view and returns its address.
func (s *studio) view(ctx context.Context) (url string, stop func(), err error) {
	cmd := exec.CommandContext(ctx, s.program, "view")
	cmd.Env = s.env
	said, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	lines := bufio.NewScanner(said)
	if !lines.Scan() {
		stop()
		return "", nil, errors.New("vitrine view printed no address")
	}
	return lines.Text(), stop, nil
}

// scene is what is done before a picture.
type scene struct {
	name   string
	scheme string
	script string // until it is true
	pause  time.Duration
}

// work is what the guest does meanwhile: files, output, processes.
const work = `uname -a; while :; do :; done & while :; do dd if=/dev/urandom of=/tmp/f bs=64k count=8 2>/dev/null; ls -l /proc/self | head -3; sleep 0.3; done`

func (s *studio) take(ctx context.Context, url string) error {
	b := s.browser
	if err := b.Navigate(ctx, url); err != nil {
		return err
	}
	if err := b.Wait(ctx, `document.querySelectorAll('.card').length === 3 && [...document.querySelectorAll('.card:not(.ended) .figures')].every((f) => f.textContent.includes('%'))`); err != nil {
		return err
	}
	if err := b.Size(ctx, width, 460); err != nil {
		return err
	}
	if err := s.shoot(ctx, scene{name: "view-machines", scheme: "light", script: "true", pause: 4 * time.Second}); err != nil {
		return err
	}
	if err := errors.Join(b.Size(ctx, width, height), b.Eval(ctx, `location.hash = '#/m/web'`, nil)); err != nil {
		return err
	}
	if err := b.Wait(ctx, `document.querySelector('.xterm-screen') && document.querySelectorAll('.room.device').length > 3 && document.querySelector('.memory .figures').textContent`); err != nil {
		return err
	}
	time.Sleep(time.Second) // until the shell has its prompt
	if err := b.Eval(ctx, `document.querySelector('.xterm-helper-textarea').focus()`, nil); err != nil {
		return err
	}
	if err := b.Keys(ctx, work+"\n"); err != nil {
		return err
	}
	for _, sc := range []scene{
		{"view-light", "light", `document.querySelectorAll('.rows tbody tr').length > 20`, 5 * time.Second},
		{"view-dark", "dark", `true`, time.Second},
		{"view-presenter", "dark", `document.getElementById('presenter').getAttribute('aria-pressed') === 'true' || document.getElementById('presenter').click()`, 2 * time.Second},
		{"view-step", "light", `document.getElementById('presenter').getAttribute('aria-pressed') === 'false' || document.getElementById('presenter').click()`, time.Second},
	} {
		if sc.name == "view-step" {
			if err := s.pauseAndStep(ctx); err != nil {
				return err
			}
		}
		if err := s.shoot(ctx, sc); err != nil {
			return err
		}
	}
	if err := b.Eval(ctx, `document.getElementById('tab-2').click()`, nil); err != nil {
		return err
	}
	return s.shoot(ctx, scene{"view-walk", "light", `document.querySelectorAll('.steps .level').length > 1`, time.Second})
}

func (s *studio) pauseAndStep(ctx context.Context) error {
	b := s.browser
	if err := b.Eval(ctx, `document.getElementById('pause').click()`, nil); err != nil {
		return err
	}
	if err := b.Wait(ctx, `!document.getElementById('step').disabled`); err != nil {
		return err
	}
	// A CPU that halts has no next instruction for a while.
	if err := b.Eval(ctx, `[...document.querySelectorAll('.room.cpu button')].sort((a, b) => b.textContent.includes('user') - a.textContent.includes('user'))[0].click()`, nil); err != nil {
		return err
	}
	for range 3 {
		if err := b.Eval(ctx, `document.getElementById('step').click()`, nil); err != nil {
			return err
		}
		time.Sleep(500 * time.Millisecond)
	}
	return b.Wait(ctx, `document.querySelectorAll('.code .here').length === 1`)
}

func (s *studio) shoot(ctx context.Context, sc scene) error {
	b := s.browser
	if err := errors.Join(b.Scheme(ctx, sc.scheme), b.Wait(ctx, sc.script)); err != nil {
		return fmt.Errorf("%s: %w", sc.name, err)
	}
	time.Sleep(sc.pause)
	p, err := b.Screenshot(ctx)
	if err != nil {
		return err
	}
	if p, err = smaller(p); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.out, sc.name+".png"), p, 0o644)
}
