package main

import (
	"errors"
	"path/filepath"
	"strings"

	"meridian/checker"
	"meridian/cmd/internal/daemon"
	"meridian/internal/strictyaml"
	"meridian/schema"
)

// readSettings reads a settings file, and the network that it names: with the
// versions that are pending.
func readSettings(path string) (checker.Settings, *schema.Network, error) {
	var s checker.Settings
	if path == "" {
		return s, nil, daemon.Misuse("missing -config: write -config checker.yml")
	}
	if err := strictyaml.Load(path, &s); err != nil {
		return s, nil, err
	}
	if err := s.Check(); err != nil {
		return s, nil, errors.New(path + ": " + strings.ReplaceAll(err.Error(), "\n", "\n"+path+": "))
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return s, nil, err
	}
	s = s.Rooted(dir)
	n, _, err := schema.LoadNetwork(s.Network)
	if err != nil {
		return s, nil, err
	}
	return s, checker.WithPending(n, s.PendingVersions), nil
}
