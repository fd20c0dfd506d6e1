// The builder command makes repositories. Today it has one verb, repo, which
// writes the metadata of a directory of packages. It never changes a package, and
// never signs.
package main

import (
	"context"

	"meridian/cmd/internal/daemon"
)

const usage = `usage:
    builder repo [-update] [option...] DIR

repo writes DIR/repodata for the packages below DIR. The lists of packages are
those of createrepo_c 0.17. repomd.xml is replaced last, and unsigned.

    -update                reuse what is known of unchanged packages; keep
                           group, modules and updateinfo; touch nothing if
                           nothing changed
    -revision TEXT         of repomd.xml (default the time, above the last)
    -set-timestamp-to-revision    the revision, a number, is the files' time too
    -baseurl URL           where the packages are, if not beside repodata
    -excludes PATTERN      leave out paths below DIR, or names, that match;
                           repeatable
    -pkglist FILE          take these packages, a path below DIR a line
    -groupfile, -modules, -updateinfo FILE     check, and pass on
    -compress-type gz|zst  of the lists (default gz: EL7 reads no zst)
    -checksum sha256|sha384|sha512
    -retain-old-md N       keep the newest N older files of each kind
    -workers N             read N packages at once (default one a processor)
    -cache FILE            what was read (default in the user's cache directory)
    -receipts FILE         what another command found of the packages it read;
    -write-receipts FILE   the same of this one, for the next
    -quiet                 no progress and no summary

A package that cannot be used is named with the reason, and left out. The exit
status is then 1, although the repository is there.

    builder repo -update -retain-old-md 2 /srv/build/9/BaseOS/x86_64/os
`

func main() { daemon.Main(run) }

func run(ctx context.Context, env daemon.Env) error {
	verb, args, err := daemon.Verb(env, usage)
	if err != nil {
		return err
	}
	switch verb {
	case "repo":
		return repo(ctx, env, args)
	}
	return daemon.Misuse("unknown command %q; builder -h lists them", verb)
}
