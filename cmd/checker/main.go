// The checker command looks at the mirrors of a network and at its origin. lint
// reads what operators write and opens no connection; probe visits the mirrors as
// well; origin shows what is believed of tier0, and keeps what administrators
// decide about it.
package main

import (
	"context"

	"meridian/cmd/internal/daemon"
)

const usage = `usage:
    checker lint [-network FILE] [-format text|github|json] [FILE...]
    checker probe [-network FILE] [-origin URL|DIR | -config checker.yml]
                  [-format text|json] FILE...
    checker origin -config checker.yml [-format text|json] [KEY...]
    checker origin -config checker.yml expire KEY...
    checker origin -config checker.yml accept KEY...
    checker ready  -config checker.yml [-min SHARE] [-missing] [-format text|json]
                   VERSION
    checker token  -config checker.yml MIRROR...

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

probe also visits the mirrors of FILE, once, and prints what is wrong with them:
each way to them, certificate, repositories, images, some files. Each trouble is
told with the request that shows it, as a line to paste, and with what to do. The
exit status is 1 when something failed: the network should wait with the mirror.

    -network FILE   says what a mirror has (default network.yml)
    -origin URL     tier0, as a URL or a directory: what the mirror has is compared
                    with it. Without, only with what the mirror says of itself.
    -config FILE    the settings of a checker, which name both
    -format text    for people (default); json has every check and all evidence
    -allow-private-addresses   for mirrors of a test network

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

ready prints how much of the network carries each repository of a version, which
may be one of pending_versions, by number of mirrors and by bandwidth, and for
each continent. The exit status is 1 while the origin lacks one, or fewer than
SHARE (default 0.6) of a continent's bandwidth have it.

token prints what the operator of a mirror sends with the hint that it has
synced: POST /api/v1/mirrors/MIRROR/synced, Authorization: Bearer TOKEN.

examples:
    checker lint -network network.yml mirrors.d/mirror.example.org.yml
    checker probe -origin https://tier0.example.org/ mirrors.d/mirror.example.org.yml
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
	case "probe":
		return probe(ctx, env, args)
	case "origin":
		return origin(ctx, env, args)
	case "ready":
		return ready(ctx, env, args)
	case "token":
		return token(env, args)
	}
	return daemon.Misuse("unknown command %q; checker -h lists them", verb)
}
