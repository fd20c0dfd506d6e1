package testworld

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"meridian/schema"
)

// SampleNetwork is a network of the shape of a real one: three major versions
// with their aliases, an optional module, old versions in the vault, repositories
// that not every version has, and an architecture that only one version knows.
// vault is the base URL of the vault.
func SampleNetwork(vault string) *schema.Network {
	both := []schema.Arch{"x86_64", "aarch64"}
	three := []schema.Arch{"x86_64", "x86_64_v2", "aarch64"}
	return &schema.Network{
		AllowedOutdate: schema.DefaultUpdateFrequency * 4,
		MirrorsDir:     "mirrors.d",
		Versions:       []schema.Version{"8", "8.10", "9", "9.8", "10", "10.2"},
		Aliases:        map[schema.Version]schema.Version{"8": "8.10", "9": "9.8", "10": "10.2"},
		Modules:        []schema.Module{{Name: "kitten", Versions: []schema.Version{"10-kitten"}}},
		Vault:          []schema.Version{"8.9", "9.7", "9.8-beta", "10.1"},
		VaultMirror:    vault,
		Arches: map[schema.Version][]schema.Arch{
			"8": both, "9": both, "10": three, "10-kitten": three,
		},
		RequiredProtocols: []string{"http", "https"},
		Repos: []schema.Repo{
			{Name: "baseos", Path: "BaseOS/$basearch/os/"},
			{Name: "appstream", Path: "AppStream/$basearch/os/"},
			{Name: "powertools", Path: "PowerTools/$basearch/os/", Versions: []schema.Version{"8.10"}},
			{Name: "crb", Path: "CRB/$basearch/os/", Versions: []schema.Version{"9.8", "10.2"}},
			{Name: "extras-common", Path: "extras-common/$basearch/os/", Versions: []schema.Version{"10-kitten"}},
			{Name: "rt", Path: "RT/$basearch/os/", Versions: []schema.Version{"9.8", "10.2"}, Arches: []schema.Arch{"x86_64"}},
			{Name: "baseos-source", Path: "BaseOS/Source/", Vault: true},
		},
	}
}

// A Repository is one directory with packages and repodata: a repo of one version
// and arch.
type Repository struct {
	Version schema.Version
	Repo    string
	Arch    schema.Arch

	// Module is the tree that it lies in: "" for the main one.
	Module string

	// Path below the root of that tree: "9.8/BaseOS/x86_64/os".
	Path string
}

// Dir is the path of r below the root of a mirror that has every tree.
func (r Repository) Dir() string { return path.Join(TreeDir(r.Module), r.Path) }

// TreeDir is where a mirror keeps the main tree (module ""), or that of an
// optional module: beside the main one, as real mirrors do.
func TreeDir(module string) string {
	if module == "" {
		return "meridian"
	}
	return "meridian-" + module
}

// SampleMirror is the file of mirrors.d for a mirror that serves every tree of n
// below the base URL root, which ends in a slash.
func SampleMirror(name, root string, n *schema.Network, l schema.Location) *schema.Mirror {
	m := &schema.Mirror{
		Name:            name,
		Address:         schema.Address{HTTP: root + TreeDir("") + "/"},
		AddressOptional: make(map[string]schema.Address),
		UpdateFrequency: schema.DefaultUpdateFrequency,
		Sponsor:         "Example " + l.City,
		SponsorURL:      "https://www.example.org/",
		Email:           "mirror-admin@example.org",
		Location:        l,
	}
	for _, module := range n.Modules {
		m.AddressOptional[module.Name] = schema.Address{HTTP: root + TreeDir(module.Name) + "/"}
	}
	return m
}

// Repositories lists what a mirror that carries everything has, in the order of
// the network file. What is in the vault alone is not among them.
func Repositories(n *schema.Network) []Repository {
	var all []Repository
	add := func(module string, v schema.Version) {
		for _, r := range n.Repos {
			if r.Vault || !admits(r.Versions, v) {
				continue
			}
			for _, arch := range arches(n, v) {
				if !admits(r.Arches, arch) {
					continue
				}
				dir := strings.ReplaceAll(r.Path, "$basearch", string(arch))
				all = append(all, Repository{v, r.Name, arch, module, path.Join(string(v), dir)})
			}
		}
	}
	for _, v := range n.Versions {
		if _, alias := n.Aliases[v]; !alias {
			add("", v)
		}
	}
	for _, m := range n.Modules {
		for _, v := range m.Versions {
			add(m.Name, v)
		}
	}
	return all
}

// admits: an empty list means everything.
func admits[T comparable](list []T, x T) bool {
	return len(list) == 0 || slices.Contains(list, x)
}

// arches of a version are those of its major version unless it has its own.
func arches(n *schema.Network, v schema.Version) []schema.Arch {
	if a, ok := n.Arches[v]; ok {
		return a
	}
	return n.Arches[schema.Version(major(string(v)))]
}

// Packages is what r holds in a generation, counted from 1. Only baseos changes:
// it has a package in every version since the first, and one that needs it.
// The others have one package, for ever.
func (r Repository) Packages(generation int) []Package {
	tag := "1.el" + strings.NewReplacer(".", "_", "-", "_").Replace(string(r.Version))
	if r.Repo != "baseos" {
		return []Package{{Name: "meridian-" + r.Repo, Version: "1.0", Release: tag, Arch: string(r.Arch)}}
	}
	const name = "meridian-hello"
	var pkgs []Package
	for g := 1; g <= generation; g++ {
		pkgs = append(pkgs, Package{Name: name, Version: fmt.Sprintf("1.%d", g), Release: tag, Arch: string(r.Arch)})
	}
	return append(pkgs, Package{Name: "meridian-greeter", Version: "1.0", Release: tag, Arch: "noarch",
		Requires: []string{name + " >= 1.1"}})
}

// WriteNetwork writes n as dir/network.yml, a config.yml of version 3, and every
// mirror into a file of its own below dir/mirrors.d.
func WriteNetwork(dir string, n *schema.Network, mirrors []*schema.Mirror) error {
	mirrorsDir := filepath.Join(dir, n.MirrorsDir)
	if err := os.MkdirAll(mirrorsDir, 0o755); err != nil {
		return fmt.Errorf("write network: %w", err)
	}
	errs := []error{os.WriteFile(filepath.Join(dir, "network.yml"), networkYAML(n), 0o644)}
	for _, m := range mirrors {
		errs = append(errs, os.WriteFile(filepath.Join(mirrorsDir, m.Name+".yml"), mirrorYAML(m), 0o644))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write network: %w", err)
	}
	return nil
}

// The YAML is written by hand so that it reads as people write it: it is shown
// in the demo, and it tests the reader with something that no library wrote.

func networkYAML(n *schema.Network) []byte {
	var b yaml
	b.line(0, "config_version: 3")
	b.duration("allowed_outdate", n.AllowedOutdate)
	b.line(0, "mirrors_dir: %s", n.MirrorsDir)
	b.list(0, "versions", quoted(n.Versions))
	b.line(0, "duplicated_versions:")
	for _, v := range n.Versions {
		if to, ok := n.Aliases[v]; ok {
			b.line(1, "%q: %q", v, to)
		}
	}
	if len(n.Modules) > 0 {
		b.line(0, "optional_module_versions:")
		for _, m := range n.Modules {
			var short []string
			for _, v := range m.Versions {
				short = append(short, strconv.Quote(strings.TrimSuffix(string(v), "-"+m.Name)))
			}
			b.list(1, m.Name, short)
		}
	}
	b.list(0, "vault_versions", quoted(n.Vault))
	b.line(0, "vault_mirror: %s", n.VaultMirror)
	b.line(0, "arches:")
	for _, v := range slices.Sorted(maps.Keys(n.Arches)) {
		b.list(1, strconv.Quote(string(v)), plain(n.Arches[v]))
	}
	b.list(0, "required_protocols", n.RequiredProtocols)
	b.line(0, "repos:")
	for _, r := range n.Repos {
		b.line(1, "- name: %s", r.Name)
		b.line(2, "path: %s", r.Path)
		b.list(2, "versions", quoted(r.Versions))
		b.list(2, "arches", plain(r.Arches))
		if r.Vault {
			b.line(2, "vault: true")
		}
	}
	return []byte(b.String())
}

func mirrorYAML(m *schema.Mirror) []byte {
	var b yaml
	b.line(0, "name: %s", m.Name)
	b.line(0, "address:")
	b.address(1, m.Address)
	if len(m.AddressOptional) > 0 {
		b.line(0, "address_optional:")
		for _, module := range slices.Sorted(maps.Keys(m.AddressOptional)) {
			b.line(1, "%s:", module)
			b.address(2, m.AddressOptional[module])
		}
	}
	b.duration("update_frequency", m.UpdateFrequency)
	b.line(0, "sponsor: %q", m.Sponsor)
	b.line(0, "sponsor_url: %s", m.SponsorURL)
	b.line(0, "email: %s", m.Email)
	l := m.Location
	b.line(0, "geolocation:")
	b.line(1, "country: %q", l.Country) // quoted: NO is Norway
	if l.City != "" {
		b.line(1, "city: %q", l.City)
	}
	if l.HasCoordinates {
		b.line(1, "latitude: %g", l.Latitude)
		b.line(1, "longitude: %g", l.Longitude)
	}
	if m.Private {
		b.line(0, "private: true")
	}
	if m.Monopoly {
		b.line(0, "monopoly: true")
	}
	if len(m.Subnets) > 0 {
		b.line(0, "subnets:")
		for _, p := range m.Subnets {
			b.line(1, "- %q", p)
		}
	}
	if len(m.ASN) > 0 {
		b.line(0, "asn:")
		for _, n := range m.ASN {
			b.line(1, "- %d", n)
		}
	}
	if m.Bandwidth != 0 {
		b.line(0, "bandwidth: %d", m.Bandwidth)
	}
	if m.Anycast {
		b.line(0, "anycast: true")
	}
	if c := m.Carries; len(c.Versions) > 0 || len(c.Arches) > 0 || c.NoISOs {
		b.line(0, "carries:")
		b.list(1, "versions", quoted(c.Versions))
		b.list(1, "arches", plain(c.Arches))
		if c.NoISOs {
			b.line(1, "isos: false")
		}
	}
	return []byte(b.String())
}

// yaml is a text in the making.
type yaml struct{ strings.Builder }

func (b *yaml) line(depth int, format string, args ...any) {
	b.WriteString(strings.Repeat("  ", depth))
	fmt.Fprintf(b, format+"\n", args...)
}

// duration writes nothing for none, which is how the default is said.
func (b *yaml) duration(key string, d time.Duration) {
	if d != 0 {
		b.line(0, "%s: %s", key, schema.FormatDuration(d))
	}
}

// list writes nothing for an empty list, which is how "all" is said.
func (b *yaml) list(depth int, key string, items []string) {
	if len(items) == 0 {
		return
	}
	b.line(depth, "%s:", key)
	for _, item := range items {
		b.line(depth+1, "- %s", item)
	}
}

func (b *yaml) address(depth int, a schema.Address) {
	for _, kv := range [][2]string{{"http", a.HTTP}, {"https", a.HTTPS}, {"rsync", a.Rsync}, {"ftp", a.FTP}} {
		if kv[1] != "" {
			b.line(depth, "%s: %s", kv[0], kv[1])
		}
	}
}

// quoted is for versions: 9.10 without quotes is the number 9.1.
func quoted[S ~string](list []S) []string {
	var q []string
	for _, s := range list {
		q = append(q, strconv.Quote(string(s)))
	}
	return q
}

func plain[S ~string](list []S) []string {
	var p []string
	for _, s := range list {
		p = append(p, string(s))
	}
	return p
}

// Settings is the part of mirrorlist.yml that a test world changes.
type Settings struct {
	// Listen is the address of the server, with a port.
	Listen string

	// TrustedProxies are the prefixes whose X-Forwarded-For counts.
	TrustedProxies []string

	// Geo is "demo" for the small database that is built into the server, or a
	// file; "" for none.
	Geo string

	// CacheDir is the server's own; "" for the user's, which tests stay out of.
	CacheDir string

	// State is where a checker writes, as in "dir:state"; "" for no checker.
	State string

	// Stats is where the server counts, as in "dir:stats"; "" for nowhere.
	Stats string
}

// WriteSettings writes dir/mirrorlist.yml for the network that WriteNetwork put
// beside it, with a secret of its own so that lists keep their order when the
// server is started again, and returns the file's path.
func WriteSettings(dir string, s Settings) (string, error) {
	var b yaml
	b.line(0, "listen: %s", s.Listen)
	b.line(0, "network: network.yml")
	b.line(0, "secret_file: secret")
	if len(s.TrustedProxies) > 0 {
		b.line(0, "trusted_proxies: [%s]", strings.Join(s.TrustedProxies, ", "))
	}
	if s.Geo != "" {
		b.line(0, "geo: {location: %s, asn: %[1]s}", s.Geo)
	}
	if s.CacheDir != "" {
		b.line(0, "cache_dir: %s", s.CacheDir)
	}
	if s.State != "" {
		b.line(0, "state: %s", s.State)
	}
	if s.Stats != "" {
		b.line(0, "stats: %s", s.Stats)
	}
	b.line(0, "allow_private_addresses: true # the mirrors of this network are on loopback")
	file := filepath.Join(dir, "mirrorlist.yml")
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "secret"), []byte("the same secret in every test world\n"), 0o600),
		os.WriteFile(file, []byte(b.String()), 0o644))
	if err != nil {
		return "", fmt.Errorf("write settings: %w", err)
	}
	return file, nil
}
