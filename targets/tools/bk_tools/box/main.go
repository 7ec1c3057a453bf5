// Command box is a static multi-call binary in the manner of busybox: a POSIX
// shell and a handful of file utilities, each called by the name of its link.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/u-root/u-root/pkg/core"
	"github.com/u-root/u-root/pkg/core/cat"
	"github.com/u-root/u-root/pkg/core/chmod"
	"github.com/u-root/u-root/pkg/core/cp"
	"github.com/u-root/u-root/pkg/core/find"
	"github.com/u-root/u-root/pkg/core/ls"
	"github.com/u-root/u-root/pkg/core/mkdir"
	"github.com/u-root/u-root/pkg/core/mv"
	"github.com/u-root/u-root/pkg/core/rm"
	"github.com/u-root/u-root/pkg/core/shasum"
	"github.com/u-root/u-root/pkg/core/tar"
	"github.com/u-root/u-root/pkg/core/touch"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

var utilities = map[string]func() core.Command{
	"cat":    func() core.Command { return cat.New() },
	"chmod":  func() core.Command { return chmod.New() },
	"cp":     func() core.Command { return cp.New() },
	"find":   func() core.Command { return find.New() },
	"ls":     func() core.Command { return ls.New() },
	"mkdir":  func() core.Command { return mkdir.New() },
	"mv":     func() core.Command { return mv.New() },
	"rm":     func() core.Command { return rm.New() },
	"shasum": func() core.Command { return shasum.New() },
	"tar":    func() core.Command { return tar.New() },
	"touch":  func() core.Command { return touch.New() },
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, filepath.Base(os.Args[0]), os.Args[1:])
	stop()
	var status interp.ExitStatus
	switch {
	case err == nil:
	case errors.As(err, &status):
		os.Exit(int(status))
	default:
		fmt.Fprintln(os.Stderr, "box:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, args []string) error {
	switch name {
	case "box", "busybox":
		if len(args) == 0 {
			fmt.Println(strings.Join(names(), "\n"))
			return nil
		}
		return run(ctx, args[0], args[1:])
	case "sh":
		return shell(ctx, args)
	case "sleep":
		return sleep(ctx, args)
	case "true":
		return nil
	case "false":
		return interp.ExitStatus(1)
	case "echo":
		fmt.Println(strings.Join(args, " "))
		return nil
	}
	utility, ok := utilities[name]
	if !ok {
		return fmt.Errorf("%s: applet not found", name)
	}
	command := utility()
	command.SetIO(os.Stdin, os.Stdout, os.Stderr)
	return command.RunContext(ctx, args...)
}

func names() []string {
	all := []string{"echo", "false", "sh", "sleep", "true"}
	for name := range utilities {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}

func sleep(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: sleep SECONDS")
	}
	duration, err := time.ParseDuration(args[0] + "s")
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(duration):
		return nil
	}
}

// shell runs `sh [-e] -c SCRIPT`, `sh FILE` or a script on standard input.
func shell(ctx context.Context, args []string) error {
	runner, err := interp.New(interp.StdIO(os.Stdin, os.Stdout, os.Stderr))
	if err != nil {
		return err
	}
	for len(args) > 0 && args[0] == "-e" {
		if err := interp.Params("-e")(runner); err != nil {
			return err
		}
		args = args[1:]
	}
	var source = os.Stdin
	text := ""
	switch {
	case len(args) >= 2 && args[0] == "-c":
		text = args[1]
	case len(args) >= 1:
		if source, err = os.Open(args[0]); err != nil {
			return err
		}
		defer source.Close()
	}
	parser := syntax.NewParser(syntax.Variant(syntax.LangPOSIX))
	var program *syntax.File
	if text != "" {
		program, err = parser.Parse(strings.NewReader(text), "sh")
	} else {
		program, err = parser.Parse(source, source.Name())
	}
	if err != nil {
		return err
	}
	return runner.Run(ctx, program)
}
