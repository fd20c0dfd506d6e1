package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"meridian/internal/testworld"
)

// firstCheck has the checker look at everything once, before there is a second
// generation.
func (d *demo) firstCheck(ctx context.Context) error {
	addr, err := testworld.FreeAddr("127.0.0.1")
	if err != nil {
		return err
	}
	d.checkerAt = "http://" + addr + "/"
	mirrored, vault := d.trees()
	settings := fmt.Sprintf(`network: network.yml
origin:
  main: %q
`, d.path("tier0", mirrored[0]))
	for i, m := range d.network.Modules {
		settings += fmt.Sprintf("  %s: %q\n", m.Name, d.path("tier0", mirrored[i+1]))
	}
	settings += fmt.Sprintf(`  vault: %q
state: dir:%s
cache_dir: %q
listen: %s
interval: 5s
allow_private_addresses: true # the mirrors of this network are on loopback
`, d.path("tier0", vault), d.path("state"), d.path("cache", "checker"), addr)
	if err := os.WriteFile(d.checkerSettings(), []byte(settings), 0o644); err != nil {
		return err
	}
	if err := d.tool(ctx, "checker", "once", "-config", d.checkerSettings()); err != nil {
		return err
	}
	d.say("the checker has visited the mirrors")
	return nil
}

// checkerSettings is the settings file of the checker.
func (d *demo) checkerSettings() string { return d.path("etc", "checker.yml") }

// startChecker starts the daemon and returns when it has visited all mirrors.
func (d *demo) startChecker(ctx context.Context) (err error) {
	cmd := exec.Command(d.path("bin", "checker"), "run", "-config", d.checkerSettings())
	cmd.Stdout, cmd.Stderr = d.log, d.log
	if d.checker, err = testworld.Start(cmd); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := d.checker.Ready(ctx, d.checkerAt+"readyz"); err != nil {
		return err
	}
	d.say("the checker follows the mirrors")
	return nil
}
