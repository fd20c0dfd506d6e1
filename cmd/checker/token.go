package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"

	"meridian/checker"
	"meridian/cmd/internal/daemon"
	"meridian/schema"
)

const tokenUsage = `usage:
    checker token -config checker.yml MIRROR...

token prints what the operator of a mirror sends with the hint that it has
synced, to the listener of the checker:

    curl -X POST -H "Authorization: Bearer TOKEN" \
        https://checker.example.org/api/v1/mirrors/MIRROR/synced

The mirror is then visited within seconds. A hint is all that it is: what the
mirror serves decides. Tokens are derived from secret_file; a new secret makes
all of them void.

    checker token -config /etc/meridian/checker.yml mirror.example.org
`

// token prints what operators of mirrors send with the hint that they have
// synced.
func token(env daemon.Env, args []string) error {
	flags := flag.NewFlagSet("token", flag.ContinueOnError)
	config := flags.String("config", "", "")
	names, err := parseArgs(flags, args, tokenUsage)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return daemon.Misuse("whose token? write checker token -config checker.yml mirror.example.org")
	}
	s, _, err := readSettings(*config)
	if err != nil {
		return err
	}
	secret, err := readSecret(s.SecretFile)
	if err != nil {
		return err
	}
	tree, _ := schema.ReadTree(s.Network, "", nil) // it was read before, and mirrors that cannot be read are not there
	for _, name := range names {
		if tree != nil && !slices.ContainsFunc(tree.Mirrors, func(m *schema.Mirror) bool { return m.Name == name }) {
			fmt.Fprintf(env.Stderr, "checker: there is no mirror %q in the network: until there is one, the listener answers 404 to its token\n", name)
		}
		if _, err := fmt.Fprintf(env.Stdout, "%s\n", checker.Token(secret, name)); err != nil {
			return err
		}
	}
	return nil
}

// readSecret reads what tokens are derived from.
func readSecret(path string) ([]byte, error) {
	if path == "" {
		return nil, fmt.Errorf("secret_file is not set: there are no tokens; write secret_file: FILE into the settings, with %d random characters or more in it", checker.MinSecret)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if data = bytes.TrimSpace(data); len(data) < checker.MinSecret {
		return nil, fmt.Errorf("%s: %d characters are too few for a secret; write at least %d random ones", path, len(data), checker.MinSecret)
	}
	return data, nil
}
