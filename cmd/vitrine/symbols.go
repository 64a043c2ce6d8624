package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/boot"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm/symbols"
)

func symbolsCommand() *cli.Command {
	return &cli.Command{
		Name: "symbols", ArgsUsage: "[NAME]", OnUsageError: onUsageError,
		Usage: "list the functions of a guest kernel, or write them for a debugger",
		Description: "Of the kernel of machine NAME, of --kernel, or of the default one. Stripped\n" +
			"kernels and bzImages tell them too, unless built without CONFIG_KALLSYMS.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kernel", Usage: "a bzImage or vmlinux `FILE`, or lean or full for an embedded one (default: lean)"},
			&cli.StringFlag{Name: "elf", Usage: "write an ELF `FILE` with nothing but the symbols, for GDB"},
			stateFlag(),
		},
		BashComplete: completeNames,
		Action:       listSymbols,
	}
}

func listSymbols(c *cli.Context) error {
	if c.NArg() > 1 || c.NArg() == 1 && c.IsSet("kernel") {
		return usagef("name a machine or a kernel", "symbols: unexpected argument %s", quote(c.Args().Get(c.NArg()-1)))
	}
	path, err := kernelFor(c)
	if err != nil {
		return err
	}
	t, err := kernelSymbols(path)
	if err != nil {
		return err
	}
	if !c.IsSet("elf") {
		return t.WriteMap(c.App.Writer)
	}
	return writeFile(c.String("elf"), t.WriteELF)
}

// kernelFor is the file of the kernel that the line names.
func kernelFor(c *cli.Context) (string, error) {
	kernel := c.String("kernel")
	switch {
	case c.NArg() == 1:
		return machineKernel(c, c.Args().First())
	case kernel == "":
		kernel = guestimages.Kernels()[0]
	}
	return kernelFile(kernel)
}

// kernelFile is the file of a kernel, which may be the name of an embedded one.
func kernelFile(kernel string) (string, error) {
	for _, name := range guestimages.Kernels() {
		if kernel == name {
			dir, err := cacheDir()
			if err != nil {
				return "", err
			}
			return guestimages.Path(dir, "kernel-"+name)
		}
	}
	return kernel, nil
}

func machineKernel(c *cli.Context, name string) (string, error) {
	dir, err := openState(c)
	if err != nil {
		return "", err
	}
	r, err := dir.Find(name)
	if err != nil {
		return "", err
	}
	return kernelFile(r.Kernel)
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if err := write(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// symbolsFor is what names the functions of a machine's kernel: the file, or
// where it is "" the kernel itself.
func symbolsFor(c *cli.Context, machine, file string) (*symbols.Table, error) {
	if file != "" {
		t, err := symbols.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--symbols: %w", err)
		}
		return t, nil
	}
	kernel, err := machineKernel(c, machine)
	if err != nil {
		return nil, err
	}
	return kernelSymbols(kernel)
}

// kernelSymbols is what a kernel's file says of its functions.
func kernelSymbols(path string) (*symbols.Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("symbols: kernel: %w", err)
	}
	defer f.Close()
	dir, err := cacheDir()
	if err != nil {
		dir = ""
	}
	elf, err := (&boot.Image{Kernel: f, CacheDir: dir}).ELF()
	if err != nil {
		return nil, err
	}
	t, err := symbols.Read(bytes.NewReader(elf))
	if err != nil {
		return nil, fmt.Errorf("symbols: kernel %q: %w", path, err)
	}
	return t, nil
}
