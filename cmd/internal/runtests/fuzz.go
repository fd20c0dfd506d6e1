package main

import (
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"

	"meridian/cmd/internal/daemon"
)

func fuzz(ctx context.Context, env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("fuzz", flag.ContinueOnError)
	length := flags.String("time", "5m", "for each target, or as many inputs as 1000x says")
	match := flags.String("run", "", "only targets whose name matches this regular expression")
	if err := daemon.ParseFlags(flags, args, usage); err != nil {
		return err
	}
	want, err := regexp.Compile(*match)
	if err != nil {
		return daemon.Misuse("-run %q is not a regular expression: %v", *match, err)
	}
	dirs := flags.Args()
	if len(dirs) == 0 {
		dirs = []string{"."}
	}
	ran := 0
	for _, dir := range dirs {
		targets, err := fuzzTargets(dir)
		if err != nil {
			return err
		}
		for _, t := range targets {
			if !want.MatchString(t.name) {
				continue
			}
			ran++
			fmt.Fprintf(env.Stdout, "# %s in %s for %s\n", t.name, t.dir, *length)
			cmd := goCommand(ctx, nil, "test", "-run=^$", "-fuzz=^"+t.name+"$", "-fuzztime="+*length, ".")
			cmd.Dir = t.dir
			cmd.Stdout, cmd.Stderr = env.Stdout, env.Stderr
			if err := cmd.Run(); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return fmt.Errorf("%s in %s: %w", t.name, t.dir, err)
			}
		}
	}
	if ran == 0 {
		return fmt.Errorf("no fuzz target matches %q below %s", *match, strings.Join(dirs, " "))
	}
	fmt.Fprintf(env.Stdout, "%d fuzz targets, no finding\n", ran)
	return nil
}

type fuzzTarget struct{ dir, name string }

// fuzzTargets finds every FuzzX below dir, in the order of the files. That such a
// function has the right signature is for go test to say.
func fuzzTargets(dir string) ([]fuzzTarget, error) {
	var targets []fuzzTarget
	err := goFiles(dir, func(path string) error {
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				targets = append(targets, fuzzTarget{filepath.Dir(path), fn.Name.Name})
			}
		}
		return nil
	})
	return targets, err
}
