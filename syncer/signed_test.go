package syncer

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"meridian/internal/testworld"
	"meridian/signer/verify"
)

// A repository as createrepo_c, rpmsign and gpg make it is published with
// everything verified, rolled back with a new signature, and refused for another
// key.
func TestSignedRepository(t *testing.T) {
	for _, program := range []string{"rsync", "createrepo_c", "rpmbuild", "gpg"} {
		testworld.Need(t, program)
	}
	dir := testworld.TempDir(t)
	newKey := func(name string) (*testworld.Key, *verify.Ring) {
		k, err := testworld.NewKey(t.Context(), filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		ring, err := verify.OpenRing(k.Public)
		if err != nil {
			t.Fatal(err)
		}
		return k, ring
	}
	key, ours := newKey("ours.asc")
	_, foreign := newKey("foreign.asc")

	pool, src, t0 := filepath.Join(dir, "pool"), filepath.Join(dir, "src"), directory(t)
	repo := filepath.Join(src, "9/BaseOS")
	if err := os.MkdirAll(pool, 0o755); err != nil {
		t.Fatal(err)
	}
	var pkgs []testworld.Package
	for n := 1; n <= 2; n++ {
		pkgs = append(pkgs, testworld.Package{Name: "hello", Version: "1." + string(rune('0'+n)), Release: "1", Arch: "noarch"})
		built, err := testworld.BuildPackages(t.Context(), pool, pkgs)
		if err != nil {
			t.Fatal(err)
		}
		if err := key.SignPackages(t.Context(), built...); err != nil {
			t.Fatal(err)
		}
		if err := testworld.Compose(t.Context(), repo, pool, 100+n, pkgs); err != nil {
			t.Fatal(err)
		}
		if err := key.SignRepo(t.Context(), repo); err != nil {
			t.Fatal(err)
		}
		_, err = t0.publish(t, Job{Keys: foreign}, src)
		if err == nil || !strings.Contains(err.Error(), "repomd.xml: foreign key") || !strings.Contains(err.Error(), "hello-1."+string(rune('0'+n))+"-1.noarch.rpm: foreign key") {
			t.Errorf("with another key: %v, want package and metadata refused", err)
		}
		t0.mustPublish(t, Job{Keys: ours}, src)
	}
	sign := func(ctx context.Context, file string) error {
		work := filepath.Join(t.TempDir(), "repodata")
		if err := os.MkdirAll(work, 0o755); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, "cp", file, work).CombinedOutput(); err != nil {
			t.Errorf("%s", out)
			return err
		}
		if err := key.SignRepo(ctx, filepath.Dir(work)); err != nil {
			return err
		}
		return os.Rename(filepath.Join(work, "repomd.xml.asc"), file+".asc")
	}
	if _, err := Rollback(t.Context(), Job{Dests: []string{t0.dest}, Keys: ours}, sign); err != nil {
		t.Fatal(err)
	}
	c := &verify.Checker{Keys: ours}
	if _, found := c.Repomd(filepath.Join(t0.dir, "9/BaseOS/repodata/repomd.xml")); len(found) > 0 {
		t.Errorf("the signature after the rollback: %v", found)
	}
	revision, packages, err := overFiles(t0.dir).metadataOf("9/BaseOS")
	if err != nil || revision != "103" || len(packages) != 1 {
		t.Errorf("after the rollback: revision %s with %d packages, %v; want 103 with one", revision, len(packages), err)
	}
}

func TestPublishOverSSH(t *testing.T) {
	dir := t.TempDir()
	t0 := tier0{dest: sshServer(t) + ":" + dir, dir: dir}
	for n := 1; n <= 2; n++ {
		src := t.TempDir()
		release(t, src, n)
		t0.mustPublish(t, Job{}, src)
		t0.wantGeneration(t, n)
	}
}

func TestFollowOverSSH(t *testing.T) {
	dir := t.TempDir()
	up := tier0{dest: dir, dir: dir}
	m := mirrorOf(t, tier0{dest: sshServer(t) + ":" + dir})
	for n := 1; n <= 2; n++ {
		publishTo(t, up, n)
		m.mustFollow(t)
		m.wantGeneration(t, n)
	}
	if got := m.mustFollow(t); !got.Current {
		t.Errorf("the same again: %+v, want nothing", got)
	}
}

// sshServer starts one on loopback that lets this process in, and returns the
// host to write before a colon.
func sshServer(t *testing.T) string {
	t.Helper()
	testworld.Need(t, "rsync")
	sshd, ssh := testworld.Need(t, "sshd"), testworld.Need(t, "ssh")
	work := testworld.TempDir(t)
	for _, name := range []string{"host", "user"} {
		if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(work, name)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	if os.Geteuid() == 0 {
		// As root it confines itself to this directory, which its service would make.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	addr, err := testworld.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	daemon, err := testworld.Start(exec.Command(sshd, "-D", "-e", "-f", "/dev/null", "-h", filepath.Join(work, "host"), "-p", port,
		"-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no", "-o", "PidFile=none", "-o", "UsePAM=no",
		"-o", "AuthorizedKeysFile="+filepath.Join(work, "user.pub")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Stop(0) })
	if err := daemon.Listens(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	// A user configures ports and keys for ssh; this one has a program in front.
	bin := filepath.Join(work, "bin")
	write(t, bin, map[string]string{"ssh": "#!/bin/sh\nexec " + ssh + " -F none -p " + port + " -i '" + filepath.Join(work, "user") +
		"' -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oLogLevel=ERROR \"$@\"\n"})
	if err := os.Chmod(filepath.Join(bin, "ssh"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return "127.0.0.1"
}
