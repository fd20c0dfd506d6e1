// The signer command makes keys, puts signatures on packages and metadata, and
// judges those of others. It reads private keys and passphrases from files alone,
// and opens no connection.
package main

import (
	"context"

	"meridian/cmd/internal/daemon"
)

const usage = `usage:
    signer keygen -out DIR -name NAME -email ADDR
                  (-passphrase-file FILE | -no-passphrase)
                  [-type rsa4096|rsa3072|rsa2048|ed25519] [-expires DAYS]
    signer sign   -key FILE [-passphrase-file FILE] [-out DIR]
                  [-foreign replace|keep] [-rpmv3] [-receipts FILE] [-v] PATH...
    signer verify -pub FILE [-pub FILE] [-at TIME] [-all-digests] [-v] PATH...

keygen writes private.asc, public.asc (for rpm --import and gpgkey=) and
revocation.rev into DIR. It never writes over a key.

sign signs packages and repomd.xml; of a directory, all below it. Each package
is replaced by a new file, whole; beside repomd.xml come repomd.xml.asc and
repomd.xml.key. What the key has signed already does not change.

    -out DIR             write there, and leave PATH as it is
    -foreign keep        leave what another key has signed (default: replace
                         that)
    -rpmv3               sign header and payload together too, for rpm before
                         4.14
    -receipts FILE       say what was written, with hashes, for builder repo

verify prints what is wrong with packages and repomd.xml, one line for each
thing.

    -at TIME             judge keys as of 2006-01-02 or 2006-01-02T15:04:05Z
    -all-digests         check MD5 too, which nothing new looks at

A passphrase is the one line of a file, which only you should read, or the
systemd credential signer.passphrase. The exit status is 1 when something is
wrong or was not signed, and 2 when there is something wrong with the command
line: a flag, or a path that does not exist.

    signer sign -key keys/private.asc -passphrase-file pass /srv/repo
    signer verify -pub keys/public.asc /srv/repo
`

func main() { daemon.Main(run) }

func run(ctx context.Context, env daemon.Env) error {
	verb, args, err := daemon.Verb(env, usage)
	if err != nil {
		return err
	}
	switch verb {
	case "keygen":
		return keygen(env, args)
	case "sign":
		return sign(ctx, env, args)
	case "verify":
		return verifyTrees(ctx, env, args)
	}
	return daemon.Misuse("unknown command %q; signer -h lists them", verb)
}
