package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/internal/testworld"
	"meridian/schema"
)

// A demo is the network while it runs. Its directory holds
//
//	bin/      the commands of this tree
//	keys/     the key that signs everything, made anew
//	pool/     packages, signed
//	staging/  the tree as it is composed and signed
//	tier0/    the trees as they are published
//	mirrors/  a copy of tier0 a mirror
//	etc/      network.yml, mirrors.d, the settings of servers and mirrors
//	state/    what the checker finds out
//	stats/    what the server has counted
//	client/   the root that the dnf line installs into
type demo struct {
	out, log io.Writer
	begun    time.Time

	dir       string
	temporary bool
	network   *schema.Network
	mirrors   []*testworld.Mirror // tier0, which has the vault, then one a site
	rsync     *testworld.Child    // what the mirrors follow
	checker   *testworld.Child
	checkerAt string // its listener, with the slash at its end
	server    *testworld.Child
	url       string // of the server, with the slash at its end
	client    *testworld.Client
}

// needs are the programs that the stages run. dnf is wanted, but only to be
// pasted.
var needs = []string{"rpmbuild", "rsync"}

// start brings everything up, one stage after another. Whatever was started
// before an error is for stop to end.
func (d *demo) start(ctx context.Context, listen, dir string) (err error) {
	if err := testworld.Programs(needs...); err != nil {
		return fmt.Errorf("the demo runs real programs, and some are missing:\n%w", err)
	}
	if d.dir, d.temporary, err = workDir(dir); err != nil {
		return err
	}
	d.say("making a mirror network in %s", d.dir)
	if err := d.compile(ctx); err != nil {
		return err
	}
	if err := d.listen(); err != nil {
		return err
	}
	if err := d.keygen(ctx); err != nil {
		return err
	}
	if err := d.openTier0(ctx); err != nil {
		return err
	}
	// Two generations, so that a mirror can be one behind.
	for generation := 1; generation <= 2; generation++ {
		if err := d.release(ctx, generation); err != nil {
			return err
		}
		if err := d.follow(ctx, generation); err != nil {
			return err
		}
		// So that the checker knows what came before.
		if generation == 1 {
			if err := d.firstCheck(ctx); err != nil {
				return err
			}
		}
	}
	if err := d.startChecker(ctx); err != nil {
		return err
	}
	if err := d.serve(ctx, listen); err != nil {
		return err
	}
	return d.addClient()
}

// compile builds the commands of this tree that the demo starts.
func (d *demo) compile(ctx context.Context) error {
	d.say("compiling the commands")
	bin := d.path("bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	return testworld.BuildCommands(ctx, bin, "./cmd/builder", "./cmd/checker", "./cmd/mirrorlist", "./cmd/signer", "./cmd/syncer")
}

// tool runs a command of this tree to its end.
func (d *demo) tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, d.path("bin", name), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, args[0], err, out)
	}
	return nil
}

// keygen makes the key of this network. It lives as long as the network does, so
// that no passphrase guards it.
func (d *demo) keygen(ctx context.Context) error {
	return d.tool(ctx, "signer", "keygen", "-out", d.path("keys"), "-name", "Meridian demo", "-email", "demo@example.org", "-no-passphrase")
}

// sign signs packages, and the repodata of repositories.
func (d *demo) sign(ctx context.Context, paths []string) error {
	return d.tool(ctx, "signer", append([]string{"sign", "-key", d.path("keys", "private.asc")}, paths...)...)
}

// listen starts the mirrors and the vault, whose trees are still empty, and with
// their addresses writes down the network.
func (d *demo) listen() error {
	vault, err := d.mirror(vaultHost, d.path("tier0"))
	if err != nil {
		return err
	}
	d.network = testworld.SampleNetwork(vault.URL() + testworld.TreeDir("vault") + "/")
	var mirrors []*schema.Mirror
	for _, site := range sites {
		m, err := d.mirror(site.host, d.path("mirrors", site.name))
		if err != nil {
			return err
		}
		switch site.condition {
		case broken:
			err = m.Break(testworld.HTML)
		case offline:
			err = m.Break(testworld.Down)
		}
		if err != nil {
			return err
		}
		file := testworld.SampleMirror(site.name, m.URL(), d.network, site.location)
		if site.edit != nil {
			site.edit(file)
		}
		mirrors = append(mirrors, file)
	}
	d.say("%d mirrors on loopback", len(sites))
	return testworld.WriteNetwork(d.path("etc"), d.network, mirrors)
}

func (d *demo) mirror(host, dir string) (*testworld.Mirror, error) {
	m, err := testworld.StartMirror(net.JoinHostPort(host, "0"), dir)
	if err != nil {
		return nil, fmt.Errorf("%w; the demo needs the whole of 127.0.0.0/8, which Linux has", err)
	}
	d.mirrors = append(d.mirrors, m)
	return m, nil
}

// release is the way of one generation from packages to tier0: build, sign the
// packages, compose, sign the metadata, publish.
func (d *demo) release(ctx context.Context, generation int) error {
	repos := append(testworld.Repositories(d.network), vaultRepositories()...)
	built, err := d.build(ctx, generation, repos)
	if err != nil {
		return err
	}
	if err := d.sign(ctx, built); err != nil {
		return err
	}
	if err := d.compose(ctx, generation, repos); err != nil {
		return err
	}
	if err := d.signMetadata(ctx, repos); err != nil {
		return err
	}
	return d.publish(ctx, generation)
}

// build makes the packages of a generation that earlier ones did not have.
func (d *demo) build(ctx context.Context, generation int, repos []testworld.Repository) ([]string, error) {
	if err := os.MkdirAll(d.path("pool"), 0o755); err != nil {
		return nil, err
	}
	var pkgs []testworld.Package
	for _, r := range repos {
		pkgs = append(pkgs, r.Packages(generation)...)
	}
	built, err := testworld.BuildPackages(ctx, d.path("pool"), pkgs)
	d.say("generation %d: built %d packages", generation, len(built))
	return built, err
}

// compose makes the repositories, and what else is in a tree: images.
func (d *demo) compose(ctx context.Context, generation int, repos []testworld.Repository) error {
	for _, r := range repos {
		dir := d.path("staging", r.Dir())
		if err := testworld.LinkPackages(dir, d.path("pool"), r.Packages(generation)); err != nil {
			return err
		}
		if err := d.tool(ctx, "builder", "repo", "-quiet", "-revision", strconv.Itoa(generation), dir); err != nil {
			return err
		}
		if r.Repo == "baseos" {
			tree := d.path("staging", testworld.TreeDir(r.Module))
			if err := testworld.WriteISOs(tree, string(r.Version), string(r.Arch)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *demo) signMetadata(ctx context.Context, repos []testworld.Repository) error {
	var dirs []string
	for _, r := range repos {
		dirs = append(dirs, d.path("staging", r.Dir(), "repodata"))
	}
	if err := d.sign(ctx, dirs); err != nil {
		return err
	}
	d.say("composed and signed %d repositories", len(repos))
	return nil
}

// trees are the directories that are published, each on its own: the main one,
// the optional modules, and the vault, which mirrors do not carry.
func (d *demo) trees() (mirrored []string, vault string) {
	mirrored = []string{testworld.TreeDir("")}
	for _, m := range d.network.Modules {
		mirrored = append(mirrored, testworld.TreeDir(m.Name))
	}
	return mirrored, testworld.TreeDir("vault")
}

// openTier0 makes the directories of tier0 and of the mirrors, starts the rsync
// daemon that mirrors follow, and writes their settings.
func (d *demo) openTier0(ctx context.Context) error {
	mirrored, vault := d.trees()
	var modules strings.Builder
	for _, tree := range append(mirrored, vault) {
		if err := os.MkdirAll(d.path("tier0", tree), 0o755); err != nil {
			return err
		}
		fmt.Fprintf(&modules, "[%s]\npath = %s\nexclude = /.meridian/\n", tree, d.path("tier0", tree))
	}
	var addr string
	var err error
	if addr, d.rsync, err = testworld.StartRsync(ctx, d.path("etc"), modules.String()); err != nil {
		return err
	}
	for _, site := range sites {
		if site.condition != fresh && site.condition != lagging {
			continue
		}
		var settings strings.Builder
		settings.WriteString("trees:\n")
		for _, tree := range mirrored {
			dir := d.path("mirrors", site.name, tree)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			fmt.Fprintf(&settings, "  %s: {upstream: \"rsync://%s/%s\", path: %q, pub: [%q]}\n", tree, addr, tree, dir, d.path("keys", "public.asc"))
		}
		if err := os.WriteFile(d.syncerSettings(site.name), []byte(settings.String()), 0o644); err != nil {
			return err
		}
	}
	d.say("tier0 has rsync on %s", addr)
	return nil
}

// syncerSettings is the settings file by which a mirror follows.
func (d *demo) syncerSettings(mirror string) string { return d.path("etc", "syncer-"+mirror+".yml") }

// publish brings the staged trees to tier0, and reads them back as clients do.
func (d *demo) publish(ctx context.Context, generation int) error {
	mirrored, vault := d.trees()
	for _, tree := range append(mirrored, vault) {
		err := d.tool(ctx, "syncer", "publish", "-pub", d.path("keys", "public.asc"), "-network", d.path("etc", "network.yml"),
			"-url", d.mirrors[0].URL()+tree, d.path("staging", tree), d.path("tier0", tree))
		if err != nil {
			return err
		}
	}
	d.say("published generation %d to tier0", generation)
	return nil
}

// follow lets the mirrors follow tier0, but for one that stopped to.
func (d *demo) follow(ctx context.Context, generation int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	n := 0
	for _, site := range sites {
		switch {
		case site.condition == lagging && generation > 1:
			d.say("%s does not follow", site.name)
		case site.condition == lagging, site.condition == fresh:
			n++
			g.Go(func() error {
				return d.tool(ctx, "syncer", "once", "-config", d.syncerSettings(site.name))
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	d.say("%d mirrors follow tier0", n)
	return nil
}

// serve starts the mirrorlist server and returns when it answers.
func (d *demo) serve(ctx context.Context, listen string) error {
	taken, err := isTaken(listen)
	if err != nil {
		return err
	}
	if taken {
		chosen, err := testworld.FreeAddr("127.0.0.1")
		if err != nil {
			return err
		}
		d.say("%s is taken; the server listens on %s instead", listen, chosen)
		listen = chosen
	}
	settings, err := testworld.WriteSettings(d.path("etc"), testworld.Settings{
		Listen: listen,
		// Not all of loopback: a client on 127.0.2.1 has a place of its own.
		TrustedProxies: []string{"127.0.0.1/32"},
		Geo:            "demo",
		State:          "dir:" + d.path("state"),
		Stats:          "dir:" + d.path("stats"),
		CacheDir:       d.path("cache"),
	})
	if err != nil {
		return err
	}
	cmd := exec.Command(d.path("bin", "mirrorlist"), "serve", "-config", settings)
	cmd.Stdout, cmd.Stderr = d.log, d.log
	if d.server, err = testworld.Start(cmd); err != nil {
		return err
	}
	d.url = "http://" + listen + "/"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := d.server.Ready(ctx, d.url+"readyz"); err != nil {
		return err
	}
	d.say("the server answers on %s", d.url)
	return nil
}

// isTaken says whether somebody listens on addr. The error is about an address
// that nobody can listen on.
func isTaken(addr string) (bool, error) {
	ln, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		return false, ln.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return true, nil
	default:
		return false, fmt.Errorf("-listen %s: %w; write an address of this machine, such as 127.0.0.1:8080", addr, err)
	}
}

// addClient sets up the dnf that the screen tells one to run.
func (d *demo) addClient() (err error) {
	arch := "x86_64"
	if runtime.GOARCH == "arm64" {
		arch = "aarch64"
	}
	if d.client, err = testworld.NewDnf(d.path("client"), arch, "9"); err != nil {
		return err
	}
	return d.client.AddRepo(testworld.Source{
		ID:         "demo-baseos",
		Mirrorlist: d.url + "mirrorlist/$releasever/baseos?arch=$basearch",
		Key:        d.path("keys", "public.asc"),
	})
}

// stop ends everything that start began, in the opposite order, and waits for it.
func (d *demo) stop() error {
	var errs []error
	if d.server != nil {
		errs = append(errs, d.server.Stop(time.Minute))
	}
	if d.checker != nil {
		errs = append(errs, d.checker.Stop(time.Minute))
	}
	if d.rsync != nil {
		if err := d.rsync.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
		<-d.rsync.Done() // it has no status for having been asked to end
	}
	for _, m := range d.mirrors {
		errs = append(errs, m.Close())
	}
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	if d.temporary {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

func (d *demo) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

// say prints one line of progress.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%5.1fs  %s\n", time.Since(d.begun).Seconds(), fmt.Sprintf(format, args...))
}
