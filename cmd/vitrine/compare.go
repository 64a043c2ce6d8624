package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/compare"
)

func compareCommand() *cli.Command {
	return &cli.Command{
		Name:  "compare",
		Usage: "measure processes, containers and virtual machines against each other",
		Description: "Runs the same program in everything that is installed, and prints a table of what it took.\n" +
			"With --report, also a page with charts. docs/compare.md says how it is measured.",
		OnUsageError: onUsageError,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "only", Usage: "`NAMES` of engines to measure, with commas"},
			&cli.StringSliceFlag{Name: "skip", Usage: "`NAMES` of engines to leave out, with commas"},
			&cli.StringSliceFlag{Name: "workload", Usage: "`NAMES` of workloads, with commas: " + strings.Join(compare.Workloads(), ", ")},
			&cli.IntFlag{Name: "runs", Aliases: []string{"n"}, Usage: "`N` measured starts of each engine", Value: 10},
			&cli.StringFlag{Name: "scale", Usage: "`NUMBERS` of instances for memory and density, with commas", Value: "1,2,4,8,16"},
			&cli.DurationFlag{Name: "timeout", Usage: "`TIME` after which an instance is killed", Value: time.Minute},
			&cli.DurationFlag{Name: "budget", Usage: "`TIME` that all may take, about: slow engines get fewer runs", Value: 4 * time.Minute},
			&cli.BoolFlag{Name: "cold-cache", Usage: "drop the page cache before each start (root)"},
			&cli.StringFlag{Name: "json", Usage: "`FILE` for everything that was measured"},
			&cli.StringFlag{Name: "report", Usage: "`DIR` for a page with charts"},
			&cli.StringFlag{Name: "from", Usage: "`FILE` of an earlier comparison: draw that instead of measuring"},
			&cli.StringFlag{Name: "lang", Usage: "`LANGUAGE` of the page and the table: en or ko", Value: "en"},
			&cli.BoolFlag{Name: "install-help", Usage: "say how missing engines are installed"},
		},
		Action: compareAction,
	}
}

func compareAction(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("engines are named with --only", "unexpected argument %s", quote(c.Args().First()))
	}
	if err := oneOf("--lang", c.String("lang"), compare.Languages()...); err != nil {
		return err
	}
	if c.Bool("install-help") {
		return compare.InstallHelp(c.App.Writer)
	}
	res, err := comparison(c)
	if err != nil {
		return err
	}
	return showComparison(c, res)
}

// comparison is an earlier one, or a new one.
func comparison(c *cli.Context) (*compare.Result, error) {
	if name := c.String("from"); name != "" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
		defer f.Close()
		res, err := compare.Read(f)
		if err != nil {
			return nil, fmt.Errorf("--from %s: %w", name, err)
		}
		return res, nil
	}
	cfg, err := compareConfig(c)
	if err != nil {
		return nil, err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	bar := newProgress(c.App.ErrWriter)
	cfg.Progress = bar.show
	res, err := compare.Run(ctx, *cfg)
	bar.done()
	if err != nil && ctx.Err() != nil && c.Context.Err() == nil {
		if left := compare.Left(err); left != nil {
			fmt.Fprintf(c.App.ErrWriter, "vitrine: interrupted; something is left: %v\n", left)
		} else {
			fmt.Fprintln(c.App.ErrWriter, "vitrine: interrupted: everything that was started is gone")
		}
		return nil, exitStatus(statusSignal + int(syscall.SIGINT))
	}
	return res, err
}

// compareConfig reads the flags.
func compareConfig(c *cli.Context) (*compare.Config, error) {
	cfg := &compare.Config{
		Engines: namesOf(c.StringSlice("only")), Skip: namesOf(c.StringSlice("skip")), Workloads: namesOf(c.StringSlice("workload")),
		Runs: c.Int("runs"), Timeout: c.Duration("timeout"), Budget: c.Duration("budget"), ColdCache: c.Bool("cold-cache"), Version: version(),
	}
	for _, s := range namesOf([]string{c.String("scale")}) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, usagef("use numbers with commas, such as 1,2,4", "--scale: %s is no number", quote(s))
		}
		cfg.Scale = append(cfg.Scale, n)
	}
	if err := cfg.Check(); err != nil {
		return nil, usagef("see vitrine compare --help", "%w", err)
	}
	return cfg, machinesForComparison(cfg)
}

// machinesForComparison gives all machines vitrine's own kernel, and the words
// for its command line that suit the host.
func machinesForComparison(cfg *compare.Config) (err error) {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	if cfg.Kernel, err = guestimages.Path(cache, guestimages.KernelLean); err != nil {
		return err
	}
	cfg.KernelsEmulated = vmm.KernelsEmulated()
	cfg.KernelWords = strings.Fields(guestimages.FewerInstructions)
	if cfg.KernelsEmulated {
		cfg.KernelWords = append(cfg.KernelWords, guestimages.EmulatedByKVM)
	}
	cfg.Vitrine, err = os.Executable()
	return err
}

// namesOf takes lists with commas apart.
func namesOf(lists []string) []string {
	return strings.FieldsFunc(strings.Join(lists, ","), func(r rune) bool { return r == ',' || r == ' ' })
}

func showComparison(c *cli.Context, res *compare.Result) error {
	lang := c.String("lang")
	if name := c.String("json"); name != "" {
		if err := writeComparison(name, res); err != nil {
			return fmt.Errorf("--json: %w", err)
		}
	}
	if dir := c.String("report"); dir != "" {
		if err := compare.WriteReport(dir, res, lang); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
	}
	return compare.WriteTable(c.App.Writer, res, lang)
}

func writeComparison(name string, res *compare.Result) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := res.WriteJSON(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// progress shows how far a comparison is: a bar on a terminal, else lines.
type progress struct {
	w    io.Writer
	tty  bool
	last string
}

func newProgress(w io.Writer) *progress { return &progress{w: w, tty: isTerminal(w)} }

const barWidth = 24

func (p *progress) show(at compare.Progress) {
	if !p.tty {
		if at.What != p.last {
			fmt.Fprintf(p.w, "vitrine: %d/%d %s\n", at.Part, at.Parts, at.What)
		}
		p.last = at.What
		return
	}
	full := barWidth * at.Part / max(1, at.Parts)
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %3d %%  %s", strings.Repeat("█", full), strings.Repeat("·", barWidth-full), 100*at.Part/max(1, at.Parts), at.What)
}

func (p *progress) done() {
	if p.tty {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
