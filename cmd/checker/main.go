// The checker command looks at the mirrors of a network and at its origin. run is
// the daemon, and once a single round of it; lint reads what operators write and
// opens no connection; probe visits the mirrors as well; origin shows what is believed of tier0, and keeps what administrators
// decide about it.
package main

import (
	"context"

	"meridian/cmd/internal/daemon"
)

const usage = `usage:
    checker run   -config checker.yml
    checker once  -config checker.yml
    checker lint  [-network FILE] [FILE...]
    checker probe [-network FILE] [-origin URL] FILE...
    checker origin -config checker.yml [expire|accept] [KEY...]
    checker ready  -config checker.yml VERSION
    checker token  -config checker.yml MIRROR...

run is the daemon: it visits the mirrors and keeps what it finds out, which once
does a single time. lint reads files of mirrors.d and prints what is wrong with
them. It opens no connection. probe also visits the mirrors, once, and prints
what an operator has to do about each. origin shows what tier0 was seen to
publish, and keeps what administrators decide about it. ready says how much of
the network carries a version that is to be served. token prints what an
operator sends when a mirror has synced. "checker VERB -h" says more.

    checker run -config /etc/meridian/checker.yml
    checker lint -network network.yml mirrors.d/mirror.example.org.yml
    checker probe -origin https://tier0.example.org/ mirror.example.org.yml
`

func main() { daemon.Main(run) }

func run(ctx context.Context, env daemon.Env) error {
	verb, args, err := daemon.Verb(env, usage)
	if err != nil {
		return err
	}
	switch verb {
	case "run":
		return runDaemon(ctx, env, args)
	case "once":
		return once(ctx, env, args)
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
