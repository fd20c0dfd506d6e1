package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"meridian/cmd/internal/daemon"
	"meridian/schema"
)

const lintUsage = `usage:
    checker lint [-network FILE] [-format text|github|json] [FILE...]

lint reads files of mirrors.d and prints what is wrong with them, one problem a
line, errors first: what is wrong; what to write instead. Without FILE it reads
every mirror of the network, and the network file itself. It opens no
connection.

    -network FILE   the network that the mirrors belong to (default network.yml,
                    if there is one). Its other mirrors are compared with FILE.
    -format text    for people (default); github marks the lines of a pull
                    request; json is a list of {file, line, path, severity,
                    problem, remedy}

The exit status is 1 when there is an error: something that the server will not
use. Warnings do not change it.

    checker lint -network network.yml mirrors.d/mirror.example.org.yml
`

// defaultNetwork is read when no network is named and there is one.
const defaultNetwork = "network.yml"

// formats are the ways to print problems; those of one run all at once, so that
// the list of one format can be a document.
var formats = map[string]func(io.Writer, []schema.Problem) error{
	"text":   printText,
	"github": printGitHub,
	"json":   printJSON,
}

func lint(env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("lint", flag.ContinueOnError)
	networkFile := flags.String("network", "", "")
	format := flags.String("format", "text", "")
	files, err := parseArgs(flags, args, lintUsage)
	if err != nil {
		return err
	}
	print, ok := formats[*format]
	if !ok {
		return daemon.Misuse("unknown format %q; write text, github or json", *format)
	}
	problems, err := lintProblems(*networkFile, files)
	if err != nil {
		return err
	}
	// What is said twice about a line is one problem for who has to correct it.
	if err := print(env.Stdout, slices.Compact(problems)); err != nil {
		return err
	}
	if slices.ContainsFunc(problems, isError) {
		return daemon.Exit(1)
	}
	return nil
}

// parseArgs parses flags before, between and behind the files, which it returns:
// the shell's completion leaves people behind a file name. Behind "--" everything
// is a file.
func parseArgs(flags *flag.FlagSet, args []string, usage string) (files []string, err error) {
	for {
		if err := daemon.ParseFlags(flags, args, usage); err != nil {
			return nil, err
		}
		rest := flags.Args()
		parsed := len(args) - len(rest)
		if len(rest) == 0 || parsed > 0 && args[parsed-1] == "--" {
			return append(files, rest...), nil
		}
		files, args = append(files, rest[0]), rest[1:]
	}
}

func isError(p schema.Problem) bool { return p.Error }

// lintProblems reads the network and the files, and returns what is to be
// printed.
func lintProblems(networkFile string, files []string) ([]schema.Problem, error) {
	named := networkFile != ""
	if !named {
		networkFile = defaultNetwork
	}
	n, problems, err := schema.LintNetwork(networkFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named && len(files) > 0:
		return schema.LintFiles(nil, files), nil
	case errors.Is(err, fs.ErrNotExist) && !named:
		return nil, daemon.Misuse("there is no %s here; name the network with -network FILE, or the files to read", defaultNetwork)
	case err != nil:
		return nil, err
	case n == nil:
		return problems, nil
	}
	// Who corrects a mirror is not told about the network, unless it was named
	// among the files.
	isNetwork := func(f string) bool { return sameFile(f, networkFile) }
	if len(files) > 0 && !slices.ContainsFunc(files, isNetwork) {
		problems = nil
	}
	if rest := slices.DeleteFunc(slices.Clone(files), isNetwork); len(rest) > 0 || len(files) == 0 {
		problems = append(problems, schema.LintFiles(n, rest)...)
	}
	return problems, nil
}

// sameFile tells whether two paths lead to one file.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// printText writes errors and warnings below a heading each.
func printText(w io.Writer, problems []schema.Problem) error {
	var text strings.Builder
	for _, part := range []struct {
		heading string
		isError bool
	}{{"errors:", true}, {"warnings:", false}} {
		heading := part.heading + "\n"
		if text.Len() > 0 {
			heading = "\n" + heading
		}
		for _, p := range problems {
			if p.Error == part.isError {
				text.WriteString(heading)
				text.WriteString(p.String() + "\n")
				heading = ""
			}
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// printGitHub writes workflow commands, which GitHub shows beside the lines of a
// pull request.
func printGitHub(w io.Writer, problems []schema.Problem) error {
	message := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	var text strings.Builder
	for _, p := range problems {
		level := "warning"
		if p.Error {
			level = "error"
		}
		fmt.Fprintf(&text, "::%s file=%s", level, property.Replace(filepath.ToSlash(p.File)))
		if p.Line > 0 {
			fmt.Fprintf(&text, ",line=%d", p.Line)
		}
		if p.Path != "" {
			fmt.Fprintf(&text, ",title=%s", property.Replace(p.Path))
		}
		fmt.Fprintf(&text, "::%s\n", message.Replace(p.Text+"; "+p.Remedy))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// jsonProblem is one element of -format json, which other programs read.
type jsonProblem struct {
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`
	Path     string `json:"path,omitempty"`
	Severity string `json:"severity"` // "error" or "warning"
	Problem  string `json:"problem"`
	Remedy   string `json:"remedy"`
}

func printJSON(w io.Writer, problems []schema.Problem) error {
	return writeJSON(w, jsonProblems(problems))
}

// jsonProblems returns a list that is never null.
func jsonProblems(problems []schema.Problem) []jsonProblem {
	list := []jsonProblem{}
	for _, p := range problems {
		severity := "warning"
		if p.Error {
			severity = "error"
		}
		list = append(list, jsonProblem{p.File, p.Line, p.Path, severity, p.Text, p.Remedy})
	}
	return list
}
