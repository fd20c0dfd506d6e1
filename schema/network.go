package schema

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"meridian/internal/strictyaml"
)

var (
	networkKeys = []string{
		"config_version", "allowed_outdate", "mirrors_dir", "versions", "optional_module_versions",
		"duplicated_versions", "vault_versions", "vault_mirror", "arches", "required_protocols", "repos",
	}
	repoKeys = []string{"name", "path", "versions", "arches", "vault"}
)

// What a network file that does not say otherwise means.
const (
	DefaultAllowedOutdate = 12 * time.Hour
	DefaultMirrorsDir     = "mirrors.d"
)

// configVersion is the only format that is read.
const configVersion = "3"

// ParseNetwork reads the text of a network file. The network is nil when it
// cannot be used: no YAML, another config_version, no version or no repository;
// then at least one problem is an error. MirrorsDir is as written.
func ParseNetwork(file string, data []byte) (*Network, []Problem) {
	r := newReader(file)
	var n *Network
	if root := r.document(data); root != nil {
		n = r.network(root)
	}
	return n, r.all()
}

func (r *reader) network(root *yaml.Node) *Network {
	s := r.section(root, "", networkKeys, nil)
	usable := true
	if v, at := s.scalar("config_version"); at == nil {
		r.add(false, root.Line, "config_version", "the file does not say which format it has; 3 is taken", "write config_version: 3")
	} else if v != configVersion {
		r.errorf(at, "config_version", "convert the file to version 3", "format %s is not known", quote(at))
		usable = false
	}
	n := &Network{
		AllowedOutdate: s.duration("allowed_outdate", DefaultAllowedOutdate, time.Minute, 30*24*time.Hour),
		MirrorsDir:     DefaultMirrorsDir,
		Versions:       names[Version](s, "versions"),
		Vault:          names[Version](s, "vault_versions"),
		Aliases:        r.aliases(s.values["duplicated_versions"]),
		Modules:        r.networkModules(s.values["optional_module_versions"]),
		Arches:         r.arches(s.values["arches"]),
	}
	if v, at := s.scalar("mirrors_dir"); at != nil {
		n.MirrorsDir = v
	}
	if v, at := s.scalar("vault_mirror"); at != nil {
		switch l := readURL(v, "https"); {
		case l.fault != "":
			r.errorf(at, "vault_mirror", l.remedy, "%s: %s", quote(at), l.fault)
		case l.note != "":
			r.warnf(at, "vault_mirror", l.remedy, "%s", l.note)
			n.VaultMirror = l.url
		default:
			n.VaultMirror = l.url
		}
	}
	for _, at := range s.list("required_protocols") {
		p := strings.ToLower(strings.TrimSpace(at.Value))
		switch {
		case !slices.Contains(addressKeys, p):
			r.errorf(at, "required_protocols", "write http or https", "%s is not a protocol of a mirror", quote(at))
		case !slices.Contains(n.RequiredProtocols, p):
			n.RequiredProtocols = append(n.RequiredProtocols, p)
		}
	}
	if len(n.RequiredProtocols) == 0 {
		n.RequiredProtocols = []string{"http", "https"}
	}
	r.checkAliases(s.values["duplicated_versions"], n)
	n.Repos = r.repos(s.values["repos"], n)
	r.checkNetwork(s, n)

	if len(n.Served()) == 0 && len(n.Vault) == 0 {
		r.add(true, root.Line, "versions", "the network has no version", "write a list of versions")
		usable = false
	}
	if len(n.Repos) == 0 {
		r.add(true, root.Line, "repos", "the network has no repository", "write a list of repositories, each with name and path")
		usable = false
	}
	if !usable {
		return nil
	}
	return n
}

// checkAliases leaves out the aliases of what has no directory. An alias whose
// name is one of versions too is then a version like the others.
func (r *reader) checkAliases(at *yaml.Node, n *Network) {
	var left []Version
	for _, from := range slices.Sorted(maps.Keys(n.Aliases)) {
		to := n.Aliases[from]
		path := "duplicated_versions." + strictyaml.Clip(string(from))
		switch final, isAlias := n.Aliases[to]; {
		case !slices.Contains(n.Versions, to) && !n.IsVault(to) && n.Module(to) == "":
			r.errorf(at, path, "write one of versions, of vault_versions or of a module", "%q is not a version of the network; the alias is left out", strictyaml.Clip(string(to)))
		case isAlias && final != to:
			r.errorf(at, path, "write what it stands for", "%q is an alias itself, and has no directory; the alias is left out", strictyaml.Clip(string(to)))
		default:
			continue
		}
		left = append(left, from)
	}
	// Only now, so that it does not matter in which order they are looked at.
	for _, from := range left {
		delete(n.Aliases, from)
	}
}

// checkNetwork reports values that contradict each other.
func (r *reader) checkNetwork(s section, n *Network) {
	for _, v := range n.Served() {
		if len(n.ArchesOf(v)) == 0 {
			at := s.node
			if a := s.values["arches"]; a != nil {
				at = a
			}
			r.errorf(at, "arches", fmt.Sprintf("write a list under %q", strictyaml.Clip(string(archKey(n, v)))), "version %s has no architecture", strictyaml.Clip(string(v)))
		}
	}
	for _, v := range n.Versions {
		if n.IsVault(v) {
			r.errorf(s.values["vault_versions"], "vault_versions", "remove it from one of the two", "%s is in versions and in vault_versions; the vault serves it", strictyaml.Clip(string(v)))
		}
	}
	needsVault := len(n.Vault) > 0 || slices.ContainsFunc(n.Repos, func(r Repo) bool { return r.Vault })
	if needsVault && n.VaultMirror == "" {
		r.add(true, s.node.Line, "vault_mirror", "vault versions or repositories have no mirror", "write vault_mirror: https://HOST/")
	}
}

func archKey(n *Network, v Version) Version {
	if n.Module(v) != "" {
		return v
	}
	return major(v)
}

// pairs calls f for every key of a mapping of version-like keys.
func (r *reader) pairs(n *yaml.Node, path string, f func(key, value *yaml.Node)) {
	if n == nil {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.errorf(n, path, `write lines such as "9": ...`, "%s is not a group of keys", quote(n))
		return
	}
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i+1].ShortTag() != "!!null" {
			f(n.Content[i], n.Content[i+1])
		}
	}
}

func (r *reader) aliases(n *yaml.Node) map[Version]Version {
	all := map[Version]Version{}
	r.pairs(n, "duplicated_versions", func(k, v *yaml.Node) {
		if v.Kind != yaml.ScalarNode {
			r.errorf(v, join("duplicated_versions", strictyaml.Clip(k.Value)), "write one version", "%s is not a version", quote(v))
			return
		}
		all[Version(strings.TrimSpace(k.Value))] = Version(strings.TrimSpace(v.Value))
	})
	return all
}

func (r *reader) networkModules(n *yaml.Node) (all []Module) {
	r.pairs(n, "optional_module_versions", func(k, v *yaml.Node) {
		s := section{r, "optional_module_versions", n, map[string]*yaml.Node{k.Value: v}}
		m := Module{Name: k.Value}
		for _, version := range names[Version](s, k.Value) {
			if suffix := Version("-" + k.Value); !strings.HasSuffix(string(version), string(suffix)) {
				version += suffix
			}
			m.Versions = append(m.Versions, version)
		}
		all = append(all, m)
	})
	return all
}

func (r *reader) arches(n *yaml.Node) map[Version][]Arch {
	all := map[Version][]Arch{}
	r.pairs(n, "arches", func(k, v *yaml.Node) {
		s := section{r, "arches", n, map[string]*yaml.Node{k.Value: v}}
		all[Version(strings.TrimSpace(k.Value))] = names[Arch](s, k.Value)
	})
	return all
}

// repos reads the repositories of net, whose versions are known already.
func (r *reader) repos(n *yaml.Node, net *Network) (all []Repo) {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.errorf(n, "repos", "write one repository behind each dash", "%s is not a list", quote(n))
		return nil
	}
	lines := map[string]int{}
	for i, item := range n.Content {
		path := fmt.Sprintf("repos[%d]", i)
		s := r.section(item, path, repoKeys, nil)
		if item.Kind != yaml.MappingNode {
			continue
		}
		repo := Repo{Versions: names[Version](s, "versions"), Arches: names[Arch](s, "arches"), Vault: s.flag("vault")}
		name, at := s.scalar("name")
		if at == nil || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == '/' || c == '?' || c == '#' || c == '%' || c == 0x7f }) {
			r.errorf(item, join(path, "name"), "write name: and one word", "the repository has no usable name; it is left out")
			continue
		}
		if name == "isos" {
			r.errorf(at, join(path, "name"), "give it another name", "%q is what the directory of images is called; the repository is left out", name)
			continue
		}
		if first, ok := lines[name]; ok {
			r.errorf(at, join(path, "name"), "give it another name", "repository %q stands in line %d already; this one is left out", name, first)
			continue
		}
		repo.Name = name
		p, at := s.scalar("path")
		if p = strings.TrimLeft(p, "/"); p == "" || slices.Contains(strings.Split(p, "/"), "..") || strings.ContainsFunc(p, func(c rune) bool { return c <= ' ' || c > '~' || c == '?' || c == '#' }) {
			if at == nil {
				at = item
			}
			r.errorf(at, join(path, "path"), "write the path below the version's directory, such as BaseOS/$basearch/os/", "repository %q has no usable path; it is left out", name)
			continue
		}
		repo.Path = p
		for _, v := range repo.Versions {
			if _, ok := net.Resolve(string(v)); !ok && !net.isMajor(v) {
				r.warnf(s.values["versions"], join(path, "versions"), "write one of versions", "%s names %q, which is not a version of the network", name, v)
			}
		}
		lines[name] = item.Line
		all = append(all, repo)
	}
	return all
}

// Resolve returns the version whose directory a client gets that asks for
// requested: an alias's target; else a version of the network, of a module or
// of the vault by its exact name; else, for MAJOR.MINOR with or without "-beta"
// of a major that the network serves, that major's current minor version.
// Clients of a coming release ask for it before it is announced, and a list
// serves them better than an error.
func (n *Network) Resolve(requested string) (v Version, ok bool) {
	v = Version(requested)
	if to, ok := n.Aliases[v]; ok {
		return to, true
	}
	if slices.Contains(n.Versions, v) || slices.Contains(n.Vault, v) || n.Module(v) != "" {
		return v, true
	}
	maj, minor, ok := strings.Cut(strings.TrimSuffix(requested, "-beta"), ".")
	if !ok || !isNumber(maj) || !isNumber(minor) {
		return "", false
	}
	return n.current(Version(maj))
}

// current returns the version that stands for a major: its alias, else the
// highest minor that is served.
func (n *Network) current(maj Version) (v Version, ok bool) {
	if to, ok := n.Aliases[maj]; ok {
		return to, true
	}
	best := -1
	for _, served := range n.Versions {
		m, minor, found := strings.Cut(string(served), ".")
		if !found || Version(m) != maj || !isNumber(minor) {
			continue
		}
		if k, _ := strconv.Atoi(minor); k > best {
			best, v = k, served
		}
	}
	return v, best >= 0
}

// isNumber tells whether s is a number of a version: short, and without leading
// zeros.
func isNumber(s string) bool {
	if s == "" || len(s) > 4 || s[0] == '0' && s != "0" {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// major returns "10" of "10.2-beta" and of "10-kitten".
func major(v Version) Version {
	if i := strings.IndexAny(string(v), ".-"); i >= 0 {
		return v[:i]
	}
	return v
}

// isMajor tells whether v alone is the major of some version of the network.
func (n *Network) isMajor(v Version) bool {
	return isNumber(string(v)) && slices.ContainsFunc(slices.Concat(n.Versions, n.Vault), func(w Version) bool { return major(w) == v })
}

// IsVault tells whether v is served from the vault mirror alone.
func (n *Network) IsVault(v Version) bool { return slices.Contains(n.Vault, v) }

// Module returns the name of the module that v is a version of: "kitten" for
// "10-kitten", else "".
func (n *Network) Module(v Version) string {
	for i := range n.Modules {
		if slices.Contains(n.Modules[i].Versions, v) {
			return n.Modules[i].Name
		}
	}
	return ""
}

// ArchesOf returns the architectures of v: those listed for exactly v, else
// those of its major. Versions of modules inherit nothing. The caller must not
// change what is returned.
func (n *Network) ArchesOf(v Version) []Arch {
	if to, ok := n.Aliases[v]; ok {
		v = to
	}
	if a, ok := n.Arches[v]; ok {
		return a
	}
	if n.Module(v) != "" {
		return nil
	}
	return n.Arches[major(v)]
}

// Served returns the versions that have a directory on the mirrors, in the order
// of the file, modules last: no aliases, nothing of the vault.
func (n *Network) Served() []Version {
	var all []Version
	for _, v := range n.Versions {
		if to, alias := n.Aliases[v]; (!alias || to == v) && !n.IsVault(v) && !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	for _, m := range n.Modules {
		all = append(all, m.Versions...)
	}
	return all
}

// Repo returns the repository of that name.
func (n *Network) Repo(name string) (*Repo, bool) {
	for i := range n.Repos {
		if n.Repos[i].Name == name {
			return &n.Repos[i], true
		}
	}
	return nil, false
}

// ArchesIn returns the architectures that v has and r is built for, in the order
// of the version's. The caller must not change what is returned.
func (r *Repo) ArchesIn(n *Network, v Version) []Arch {
	all := n.ArchesOf(v)
	if len(r.Arches) == 0 {
		return all
	}
	var both []Arch
	for _, a := range all {
		if slices.Contains(r.Arches, a) {
			both = append(both, a)
		}
	}
	return both
}

// PerArch tells whether r has a directory for each architecture.
func (r *Repo) PerArch() bool {
	return strings.Contains(r.Path, "$basearch") || strings.Contains(r.Path, "${basearch}")
}

// PathFor returns r.Path for a. With a == "" what stands for the architecture
// stays as it is, and whoever reads the path puts in its own.
func (r *Repo) PathFor(a Arch) string {
	if a == "" {
		return r.Path
	}
	return strings.ReplaceAll(strings.ReplaceAll(r.Path, "$basearch", string(a)), "${basearch}", string(a))
}

// Allows tells whether the file says that v has r for a; with a == "", for any
// architecture. A repository without a list of versions is in every one, and an
// alias or a major version in the list stands for what it names.
func (n *Network) Allows(v Version, r *Repo, a Arch) bool {
	if !n.lists(r.Versions, v) {
		return false
	}
	if a == "" {
		return true
	}
	return slices.Contains(n.ArchesOf(v), a) && (len(r.Arches) == 0 || slices.Contains(r.Arches, a))
}

// lists tells whether list, empty for all, admits v.
func (n *Network) lists(list []Version, v Version) bool {
	if len(list) == 0 {
		return true
	}
	if to, ok := n.Aliases[v]; ok {
		v = to
	}
	for _, w := range list {
		if w == v || n.Aliases[w] == v {
			return true
		}
		if isNumber(string(w)) && w == major(v) && n.Module(v) == "" {
			return true
		}
	}
	return false
}

// Has tells whether a mirror that carries c has v for a; with a == "", for any
// architecture.
func (c *Carries) Has(n *Network, v Version, a Arch) bool {
	if c.Nothing || !n.lists(c.Versions, v) {
		return false
	}
	return a == "" || len(c.Arches) == 0 || slices.Contains(c.Arches, a)
}

// AddressOf returns where m has v: the tree of its module, else the main one.
func (m *Mirror) AddressOf(n *Network, v Version) Address {
	if module := n.Module(v); module != "" {
		return m.AddressOptional[module]
	}
	return m.Address
}

// Offers tells whether m has a URL of a required protocol.
func (n *Network) Offers(m *Mirror) bool {
	for _, p := range n.RequiredProtocols {
		if slices.Contains(addressKeys, p) && *m.Address.slot(p) != "" {
			return true
		}
	}
	return false
}

// mirrorsDir returns dir as seen from where the network file is named from.
func mirrorsDir(networkFile, dir string) string {
	if filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(filepath.Dir(networkFile), dir)
}
