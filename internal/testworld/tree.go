package testworld

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Compose makes the repository dir out of packages from pool: they are linked
// into Packages, and repodata is written by createrepo_c. What dir already has
// stays, so that a second call with more packages is the next generation.
// revision goes into repomd.xml and must grow.
func Compose(ctx context.Context, dir, pool string, revision int, pkgs []Package) error {
	if err := LinkPackages(dir, pool, pkgs); err != nil {
		return err
	}
	cmd, err := command(ctx, dir, "createrepo_c", "--quiet", "--no-database",
		"--revision", strconv.Itoa(revision), dir)
	if err != nil {
		return err
	}
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("compose %s: %w", dir, err)
	}
	return nil
}

// LinkPackages links packages from pool into dir/Packages, where some may be.
func LinkPackages(dir, pool string, pkgs []Package) error {
	packages := filepath.Join(dir, "Packages")
	if err := os.MkdirAll(packages, 0o755); err != nil {
		return fmt.Errorf("compose %s: %w", dir, err)
	}
	for _, p := range pkgs {
		err := os.Link(filepath.Join(pool, p.File()), filepath.Join(packages, p.File()))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("compose %s: %w", dir, err)
		}
	}
	return nil
}

// Publish makes a generation of repos below root and signs it: packages and
// repodata, each repository at its Dir. The pool keeps packages between
// generations, so that a package is the same file in all of them.
func Publish(ctx context.Context, root, pool string, key *Key, generation int, repos []Repository) error {
	if err := os.MkdirAll(pool, 0o755); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	var pkgs []Package
	for _, r := range repos {
		pkgs = append(pkgs, r.Packages(generation)...)
	}
	built, err := BuildPackages(ctx, pool, pkgs)
	if err != nil {
		return err
	}
	if len(built) > 0 {
		if err := key.SignPackages(ctx, built...); err != nil {
			return err
		}
	}
	for _, r := range repos {
		dir := filepath.Join(root, r.Dir())
		if err := Compose(ctx, dir, pool, generation, r.Packages(generation)); err != nil {
			return err
		}
		if err := key.SignRepo(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// WriteISOs puts the images of one version and arch into VERSION/isos/ARCH of a
// tree: small files with the names and the checksum list that real ones have.
func WriteISOs(tree, version, arch string) error {
	dir := filepath.Join(tree, version, "isos", arch)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write isos: %w", err)
	}
	var sums []byte
	for _, kind := range []string{"boot", "dvd", "minimal"} {
		name := fmt.Sprintf("Meridian-%s-%s-%s.iso", version, arch, kind)
		body := []byte("not an image: " + name + "\n")
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o644); err != nil {
			return fmt.Errorf("write isos: %w", err)
		}
		sums = fmt.Appendf(sums, "# %s: %d bytes\nSHA256 (%s) = %x\n", name, len(body), name, sha256.Sum256(body))
	}
	if err := os.WriteFile(filepath.Join(dir, "CHECKSUM"), sums, 0o644); err != nil {
		return fmt.Errorf("write isos: %w", err)
	}
	return nil
}
