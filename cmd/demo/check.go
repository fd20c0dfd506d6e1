package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"

	"meridian/checker/state"
	"meridian/internal/testworld"
)

// check does what the screen says, in its order, and reports all that does not
// work.
func (d *demo) check(ctx context.Context) error {
	var errs []error
	step := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
			d.say("FAILED  %s", what)
			return
		}
		d.say("ok      %s", what)
	}
	for _, page := range pages {
		_, err := d.fetch(ctx, d.url+page.path, view{})
		step(page.what, err)
	}
	for _, v := range views {
		step("a list from "+v.from, d.checkView(ctx, v))
	}
	step("verdicts of the checker", d.checkVerdicts(ctx))
	step("trees that are what their manifests say", d.checkTrees(ctx))
	if err := testworld.Programs("dnf", "rpm"); err != nil {
		d.say("skipped the dnf line: %v", err)
		return errors.Join(errs...)
	}
	for _, line := range []string{d.installLine(), d.lookLine()} {
		step(line, shell(ctx, line))
	}
	return errors.Join(errs...)
}

// checkView asks for a list and looks at its first line.
func (d *demo) checkView(ctx context.Context, v view) error {
	body, err := d.fetch(ctx, d.url+listPath, v)
	if err != nil {
		return err
	}
	lines := strings.Split(body, "\n")
	got := d.siteOf(lines[0])
	switch {
	case got == "":
		return fmt.Errorf("the first line, %q, is no mirror of this network", lines[0])
	case len(v.first) > 0 && !slices.Contains(v.first, got):
		return fmt.Errorf("%s comes first; want %s", got, strings.Join(v.first, " or "))
	case got == campus && !slices.Contains(v.first, campus):
		return errors.New("the private mirror is listed to strangers")
	}
	return nil
}

// checkTrees verifies tier0 and the mirrors that follow, and that nobody is shown
// what only publishers may know.
func (d *demo) checkTrees(ctx context.Context) error {
	mirrored, vault := d.trees()
	roots := []string{d.path("tier0", vault)}
	for _, tree := range mirrored {
		roots = append(roots, d.path("tier0", tree))
		for _, site := range sites {
			if site.condition == fresh {
				roots = append(roots, d.path("mirrors", site.name, tree))
			}
		}
	}
	for _, root := range roots {
		if err := d.tool(ctx, "syncer", "verify", root); err != nil {
			return err
		}
	}
	state := d.mirrors[0].URL() + mirrored[0] + "/.meridian/state.json"
	if _, err := d.fetch(ctx, state, view{}); err == nil {
		return fmt.Errorf("%s is shown", state)
	}
	return nil
}

// checkVerdicts waits until the checker says of each mirror how it fares.
func (d *demo) checkVerdicts(ctx context.Context) error {
	reader, err := state.OpenReader("dir:"+d.path("state"), state.Options{})
	if err != nil {
		return err
	}
	defer reader.Close()
	key := state.Key{Version: "9.8", Repo: "baseos", Arch: "x86_64"}
	late := time.After(5 * time.Minute)
	for {
		snap, err := reader.Load(ctx)
		var wrong []string
		for _, site := range sites {
			want := site.condition.verdict()
			if site.name == campus {
				want = state.Unprobed // private
			}
			got := state.Unknown
			if err == nil && snap.Mirrors[site.name] != nil {
				got = snap.Mirrors[site.name].Health[key]
			}
			if got != want {
				wrong = append(wrong, fmt.Sprintf("%s is %s, want %s", site.name, got, want))
			}
		}
		switch {
		case err == nil && len(wrong) == 0:
			return nil
		case err == nil:
			err = errors.New(strings.Join(wrong, "; "))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// siteOf is the name of the mirror that serves url, or "".
func (d *demo) siteOf(url string) string {
	for i, site := range sites {
		if strings.HasPrefix(url, d.mirrors[i+1].URL()) {
			return site.name
		}
	}
	return ""
}

// fetch gets url as a client at v would.
func (d *demo) fetch(ctx context.Context, url string, v view) (string, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if v.source != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(v.source)}
	}
	client := &http.Client{
		Timeout:   time.Minute,
		Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if v.forwarded != "" {
		req.Header.Set("X-Forwarded-For", v.forwarded)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body), nil
}

// shell runs a line as if it had been pasted.
func shell(ctx context.Context, line string) error {
	if out, err := exec.CommandContext(ctx, "/bin/sh", "-c", line).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
