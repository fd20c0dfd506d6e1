package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meridian/internal/testworld"
	"meridian/signer"
	"meridian/signer/verify"
)

// What dnf and zypper install, and what they refuse, when packages and metadata
// must be signed. The packages are those that were signed here, the metadata is
// createrepo_c's.
func TestClientsInstallWhatIsSigned(t *testing.T) {
	testworld.Need(t, "rpmbuild")
	testworld.Need(t, "createrepo_c")
	dir := testworld.TempDir(t)
	p := testworld.Package{Name: "meridian-hello", Version: "1.0", Release: "1.el9", Arch: "x86_64"}
	pool := mkdir(t, filepath.Join(dir, "pool"))
	if _, err := testworld.BuildPackages(t.Context(), pool, []testworld.Package{p}); err != nil {
		t.Fatal(err)
	}
	keys := make(map[signer.KeyType]*signer.Key)
	for _, kind := range []signer.KeyType{signer.RSA4096, signer.Ed25519} {
		made, err := signer.Generate(signer.NewKeyOptions{Name: string(kind), Email: "test@example.org", Type: kind})
		if err != nil {
			t.Fatal(err)
		}
		private, _, _, err := made.WriteTo(filepath.Join(dir, string(kind)))
		if err != nil {
			t.Fatal(err)
		}
		if keys[kind], err = signer.Open(private, nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)

	// repo makes a repository with a package signed by one key, if any, and
	// metadata by another.
	repo := func(t *testing.T, name string, packages, metadata *signer.Key) string {
		t.Helper()
		at := mkdir(t, filepath.Join(dir, name))
		b, err := os.ReadFile(filepath.Join(pool, p.File()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, p.File()), b, 0o644); err != nil {
			t.Fatal(err)
		}
		if packages != nil {
			signAll(t, packages, at)
		}
		if out, err := exec.CommandContext(t.Context(), "createrepo_c", "--quiet", at).CombinedOutput(); err != nil {
			t.Fatalf("createrepo_c: %v\n%s", err, out)
		}
		if metadata != nil {
			signAll(t, metadata, filepath.Join(at, "repodata"))
		}
		return server.URL + "/" + name + "/"
	}
	rsa, ed := keys[signer.RSA4096], keys[signer.Ed25519]
	tests := []struct {
		name     string
		packages *signer.Key
		metadata *signer.Key
		trusted  *signer.Key
		refused  bool

		// zypper believes a package whose checksum is in signed metadata, and these
		// tests have it import the key that lies beside the metadata.
		zypperInstalls bool
	}{
		{"rsa", rsa, rsa, rsa, false, true},
		{"ed25519", ed, ed, ed, false, true},
		{"unsigned-package", nil, rsa, rsa, true, true},
		{"unsigned-metadata", rsa, nil, rsa, true, false},
		{"foreign-package", ed, rsa, rsa, true, true},
		{"foreign-metadata", rsa, ed, rsa, true, true},
	}
	for _, tt := range tests {
		base := repo(t, tt.name, tt.packages, tt.metadata)
		key := filepath.Join(dir, tt.name+".key")
		if err := os.WriteFile(key, tt.trusted.Public(), 0o644); err != nil {
			t.Fatal(err)
		}
		// What we say of it is what the clients will say.
		ring, err := verify.OpenRing(key)
		if err != nil {
			t.Fatal(err)
		}
		files, err := verify.Find(t.Context(), filepath.Join(dir, tt.name))
		if err != nil {
			t.Fatal(err)
		}
		bad := false
		if err := (&verify.Checker{Keys: ring}).Tree(t.Context(), files, func(r verify.Result) { bad = bad || r.Err() != nil }); err != nil {
			t.Fatal(err)
		}
		if bad != tt.refused {
			t.Errorf("%s: verify refuses it: %v, want %v", tt.name, bad, tt.refused)
		}
		for client, newClient := range map[string]func(dir, arch, release string) (*testworld.Client, error){
			"dnf": testworld.NewDnf, "zypper": testworld.NewZypper,
		} {
			t.Run(client+" "+tt.name, func(t *testing.T) {
				testworld.Need(t, client)
				c, err := newClient(testworld.TempDir(t), "x86_64", "9")
				if err != nil {
					t.Fatal(err)
				}
				if err := c.AddRepo(testworld.Source{ID: "signed", BaseURL: base, Key: key}); err != nil {
					t.Fatal(err)
				}
				res, err := c.Run(t.Context(), "install", p.Name)
				if err != nil {
					t.Fatal(err)
				}
				installs := !tt.refused || client == "zypper" && tt.zypperInstalls
				installed, err := c.Installed(t.Context())
				if err != nil && installs {
					t.Fatal(err)
				}
				if got := slices.Contains(installed, p.NEVRA()); got != installs || (res.Code == 0) != installs {
					t.Errorf("status %d, installed %q; want that it is installed: %v\n%s", res.Code, installed, installs, strings.TrimSpace(res.Output))
				}
			})
		}
	}
}

func mkdir(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func signAll(t *testing.T, k *signer.Key, dir string) {
	t.Helper()
	files, err := verify.Find(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Sign(t.Context(), files, signer.Options{}, func(r signer.Result) {
		if r.Err != nil {
			t.Error(r.Err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
