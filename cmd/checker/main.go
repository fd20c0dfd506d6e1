// The checker command looks at the mirrors of a network. Today it has one verb,
// lint, which reads what operators write and opens no connection; it never
// changes a file.
package main

import (
	"context"

	"meridian/cmd/internal/daemon"
)

const usage = `usage:
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

func main() { daemon.Main(run) }

func run(_ context.Context, env daemon.Env) error {
	verb, args, err := daemon.Verb(env, usage)
	if err != nil {
		return err
	}
	switch verb {
	case "lint":
		return lint(env, args)
	}
	return daemon.Misuse("unknown command %q; checker -h lists them", verb)
}
