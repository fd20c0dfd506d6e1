// The checker command looks at the mirrors of a network and at its origin. lint
// reads what operators write and opens no connection; origin shows what is
// believed of tier0, and keeps what administrators decide about it.
package main

import (
	"context"

	"meridian/cmd/internal/daemon"
)

const usage = `usage:
    checker lint [-network FILE] [-format text|github|json] [FILE...]
    checker origin -config checker.yml [-format text|json] [KEY...]
    checker origin -config checker.yml expire KEY...
    checker origin -config checker.yml accept KEY...

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

origin prints what tier0 was seen to publish of each repository, and what of it
is not believed and why. KEY is VERSION/REPO/ARCH; * stands for anything, and so
does a part that is left out.

    expire   after a security push: every generation but the newest at tier0 is
             handed out only where nothing else is left, and metalinks do not
             accept it any more
    accept   believe what tier0 serves now, though its revision is not higher

They ask tier0 themselves, and write down which file they have seen; a checker
that runs, here or elsewhere, acts on it within seconds. The exit status is 1
when one of KEY cannot be decided.

examples:
    checker lint -network network.yml mirrors.d/mirror.example.org.yml
    checker origin -config checker.yml expire '9/*/x86_64'
`

func main() { daemon.Main(run) }

func run(ctx context.Context, env daemon.Env) error {
	verb, args, err := daemon.Verb(env, usage)
	if err != nil {
		return err
	}
	switch verb {
	case "lint":
		return lint(env, args)
	case "origin":
		return origin(ctx, env, args)
	}
	return daemon.Misuse("unknown command %q; checker -h lists them", verb)
}
