package testworld

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A Key signs packages and metadata for as long as a world exists. It is not
// worth keeping: whoever reads the disk has it.
type Key struct {
	// Public is the file with the armored public key, as gpgkey= wants it.
	Public string

	home string // GNUPGHOME; short, because the agent puts a socket into it

	// The agent that holds the private key lives as long as keeper, a cat, and
	// that as long as its standard input, which closes when this process ends. An
	// agent that gpg starts by itself would live for ever.
	keeper *Child
	leash  io.Closer
}

const keyUser = "packages@example.org"

// NewKey makes an RSA key without passphrase and writes its public half to the
// file public. The private half is gone after Close.
func NewKey(ctx context.Context, public string) (_ *Key, err error) {
	home, err := os.MkdirTemp("", "mgpg")
	if err != nil {
		return nil, fmt.Errorf("new key: %w", err)
	}
	k := &Key{Public: public, home: home}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.Close())
		}
	}()
	if err := k.startAgent(ctx); err != nil {
		return nil, err
	}
	if err := k.run(ctx, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key",
		"Meridian test world (worthless) <"+keyUser+">", "rsa2048", "sign", "never"); err != nil {
		return nil, err
	}
	if err := k.run(ctx, "gpg", "--batch", "--quiet", "--yes", "--armor", "--output", public, "--export", keyUser); err != nil {
		return nil, err
	}
	return k, nil
}

// startAgent returns when gpg would find the agent.
func (k *Key) startAgent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	// Where there is a /run/user/UID, gpg keeps its sockets there. Of two programs
	// that create the directory at once the loser keeps its own at home, and they
	// never meet. Without /run/user/UID this does nothing but complain.
	if err := k.run(ctx, "gpgconf", "--homedir", k.home, "--create-socketdir"); err != nil && ctx.Err() != nil {
		return err
	}
	cmd, err := command(context.Background(), k.home, "gpg-agent", "--homedir", k.home, "--quiet", "--daemon", "cat")
	if err != nil {
		return err
	}
	leash, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start gpg-agent: %w", err)
	}
	if k.keeper, err = Start(cmd); err != nil {
		return err
	}
	k.leash = leash
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		// Without --daemon it only says whether there is one.
		err := k.run(ctx, "gpg-agent", "--homedir", k.home, "--quiet")
		if err == nil {
			return nil
		}
		select {
		case <-k.keeper.Done():
			return fmt.Errorf("gpg-agent ended: %w", errors.Join(k.keeper.Err(), err))
		case <-ctx.Done():
			return fmt.Errorf("gpg-agent does not answer: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

func (k *Key) run(ctx context.Context, name string, args ...string) error {
	cmd, err := command(ctx, k.home, name, args...)
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, "GNUPGHOME="+k.home)
	_, err = output(cmd)
	return err
}

// SignPackages puts a signature into each file.
func (k *Key) SignPackages(ctx context.Context, files ...string) error {
	gpg, err := program("gpg")
	if err != nil {
		return err
	}
	return k.run(ctx, "rpmsign", append([]string{"--addsign",
		"--define", "__gpg " + gpg, // Debian's rpm looks for gpg2
		"--define", "_gpg_path " + k.home,
		"--define", "_gpg_name " + keyUser,
	}, files...)...)
}

// SignRepo signs the repomd.xml of the repository in dir, in a file beside it.
func (k *Key) SignRepo(ctx context.Context, dir string) error {
	repomd := filepath.Join(dir, "repodata", "repomd.xml")
	return k.run(ctx, "gpg", "--batch", "--quiet", "--yes", "--armor", "--local-user", keyUser,
		"--output", repomd+".asc", "--detach-sign", repomd)
}

// Close destroys the private key and ends the agent that held it.
func (k *Key) Close() error {
	var errs []error
	if k.keeper != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		errs = append(errs, stopAgent(ctx, k.home), k.leash.Close(), k.keeper.Err())
	}
	return errors.Join(append(errs, os.RemoveAll(k.home))...)
}

// stopAgent ends the agent for the keyring in home, if there is one, and removes
// the directory for its sockets, which gpg makes outside home and leaves.
func stopAgent(ctx context.Context, home string) error {
	for _, args := range [][]string{{"--kill", "all"}, {"--remove-socketdir"}} {
		cmd, err := command(ctx, home, "gpgconf", append([]string{"--homedir", home}, args...)...)
		if err != nil {
			return err
		}
		if _, err := output(cmd); err != nil {
			return err
		}
	}
	return nil
}
