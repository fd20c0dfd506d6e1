package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"meridian/cmd/internal/daemon"
	"meridian/signer"
)

func keygen(env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("keygen", flag.ContinueOnError)
	out := flags.String("out", "", "")
	name := flags.String("name", "", "")
	email := flags.String("email", "", "")
	passphraseFile := flags.String("passphrase-file", "", "")
	noPassphrase := flags.Bool("no-passphrase", false, "")
	kind := flags.String("type", string(signer.RSA4096), "")
	days := flags.Int("expires", 0, "")
	if err := daemon.ParseFlags(flags, args, usage); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return daemon.Misuse("unexpected argument %q; name the directory with -out DIR", flags.Arg(0))
	case *out == "" || *name == "" || *email == "":
		return daemon.Misuse("a key needs a place and an owner; write -out DIR -name NAME -email ADDR")
	case *noPassphrase && *passphraseFile != "":
		return daemon.Misuse("-no-passphrase and -passphrase-file contradict each other; write one")
	case *days < 0:
		return daemon.Misuse("-expires %d: a key cannot have expired before it is made; write days from now", *days)
	}
	o := signer.NewKeyOptions{
		Name: *name, Email: *email,
		Type: signer.KeyType(*kind),
		Life: time.Duration(*days) * 24 * time.Hour,
	}
	if !*noPassphrase {
		var err error
		o.Passphrase, err = passphrase(env, *passphraseFile)
		if err != nil {
			return err
		}
		if o.Passphrase == nil {
			return daemon.Misuse("without a passphrase whoever reads the file can sign; write -passphrase-file FILE, or -no-passphrase if that is meant")
		}
	}
	k, err := signer.Generate(o)
	if err != nil {
		return err
	}
	private, public, revocation, err := k.WriteTo(*out)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "fingerprint  %s\nprivate key  %s\npublic key   %s\nrevocation   %s (keep it apart from the private key)\n",
		k.Fingerprint, private, public, revocation)
	return err
}

// credential is the name under which a unit gives the passphrase to signer.
const credential = "signer.passphrase"

// credentials is the directory in which the service manager leaves secrets, or "".
func credentials(env daemon.Env) string {
	if env.Getenv == nil {
		return ""
	}
	return env.Getenv("CREDENTIALS_DIRECTORY")
}

// passphrase reads the file, or where none is named the credential of the service
// manager; nil when there is neither.
func passphrase(env daemon.Env, file string) ([]byte, error) {
	dir := credentials(env)
	if file == "" {
		if dir == "" {
			return nil, nil
		}
		file = filepath.Join(dir, credential)
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	secret, err := signer.Passphrase(file)
	if err != nil {
		return nil, err
	}
	if err := signer.Guarded(file, dir); err != nil {
		fmt.Fprintf(env.Stderr, "warning: %v\n", err)
	}
	return secret, nil
}
