// The syncer command moves trees of repositories to the hosts that serve them,
// and says what is in a tree. It never makes or signs a package, and writes
// nothing but what its arguments name.
package main

import (
	"context"

	"meridian/cmd/internal/daemon"
)

const usage = `usage:
    syncer run -config syncer.yml [-check] [-v]
    syncer once -config syncer.yml [flags] [TREE...]
    syncer publish [flags] SRC DEST...
    syncer rollback [flags] DEST...
    syncer manifest [-format compact|fedora] [-o FILE] [-previous FILE] TREE
    syncer verify [-sample N] [-manifest FILE] [-json] TREE

run is the daemon of a mirror: it keeps trees as their upstreams publish them.
once does so once. publish makes tier0 serve a tree, in an order in which no
reader finds metadata whose files are missing. rollback returns to what was
published before. manifest lists everything in TREE with sizes, times and
checksums. verify compares TREE with such a list, by default the one that was
published with it, and ends with status 1 when they differ. "syncer VERB -h"
says more.

    syncer verify -sample 1000 .
`

func main() { daemon.Main(run) }

func run(ctx context.Context, env daemon.Env) error {
	verb, args, err := daemon.Verb(env, usage)
	if err != nil {
		return err
	}
	switch verb {
	case "run":
		return follow(ctx, env, args)
	case "once":
		return once(ctx, env, args)
	case "publish", "rollback":
		return publish(ctx, env, verb, args)
	case "manifest":
		return manifest(ctx, env, args)
	case "verify":
		return verifyTree(ctx, env, args)
	}
	return daemon.Misuse("unknown command %q; syncer -h lists them", verb)
}
