package checker

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"meridian/checker/state"
	"meridian/schema"
)

// isos stands in the place of the repository in the key of the ISO set of a
// version and arch. What the network calls a repository cannot have its name.
const isos = "isos"

// WithPending returns n with versions that clients are not given yet. Such a
// version has the repositories of the version that is current in its major,
// unless the network names it already.
func WithPending(n *schema.Network, pending []schema.Version) *schema.Network {
	added := *n
	added.Versions = slices.Clone(n.Versions)
	added.Repos = slices.Clone(n.Repos)
	for _, v := range pending {
		if slices.Contains(n.Served(), v) || n.IsVault(v) {
			continue
		}
		like, _ := n.Resolve(string(v))
		added.Versions = append(added.Versions, v)
		for i := range added.Repos {
			r := &added.Repos[i]
			if len(r.Versions) > 0 && n.Allows(like, &n.Repos[i], "") {
				r.Versions = append(slices.Clone(r.Versions), v)
			}
		}
	}
	return &added
}

// Keys returns every repository that mirrors of n should have: of each version
// that is served, in the order of the network file.
func Keys(n *schema.Network) []state.Key {
	var all []state.Key
	for _, v := range n.Served() {
		for i := range n.Repos {
			if r := &n.Repos[i]; !r.Vault {
				all = appendKeys(all, n, v, r)
			}
		}
	}
	return all
}

// VaultKeys returns every repository that the vault mirror alone has.
func VaultKeys(n *schema.Network) []state.Key {
	var all []state.Key
	for _, v := range n.Served() {
		for i := range n.Repos {
			if r := &n.Repos[i]; r.Vault {
				all = appendKeys(all, n, v, r)
			}
		}
	}
	for _, v := range n.Vault {
		for i := range n.Repos {
			all = appendKeys(all, n, v, &n.Repos[i])
		}
	}
	return all
}

func appendKeys(all []state.Key, n *schema.Network, v schema.Version, r *schema.Repo) []state.Key {
	if !n.Allows(v, r, "") {
		return all
	}
	arches := r.ArchesIn(n, v)
	if !r.PerArch() {
		if len(arches) > 0 {
			all = append(all, state.Key{Version: v, Repo: r.Name})
		}
		return all
	}
	for _, a := range arches {
		all = append(all, state.Key{Version: v, Repo: r.Name, Arch: a})
	}
	return all
}

// ExcludedKeys returns every repository that the network file says there is not,
// among those of the versions that are served and their arches. Mirrors are not
// asked for them; whether the origin has one all the same decides how servers
// answer who asks for it.
func ExcludedKeys(n *schema.Network) []state.Key {
	has := map[state.Key]bool{}
	for _, k := range Keys(n) {
		has[k] = true
	}
	var all []state.Key
	add := func(k state.Key) {
		if !has[k] {
			all = append(all, k)
		}
	}
	for _, v := range n.Served() {
		for i := range n.Repos {
			switch r := &n.Repos[i]; {
			case r.Vault:
			case !r.PerArch():
				add(state.Key{Version: v, Repo: r.Name})
			default:
				for _, a := range n.ArchesOf(v) {
					add(state.Key{Version: v, Repo: r.Name, Arch: a})
				}
			}
		}
	}
	return all
}

// ISOKeys returns the ISO sets of n: one of each version that is served, and
// arch.
func ISOKeys(n *schema.Network) []state.Key {
	var all []state.Key
	for _, v := range n.Served() {
		for _, a := range n.ArchesOf(v) {
			all = append(all, state.Key{Version: v, Repo: isos, Arch: a})
		}
	}
	return all
}

// KeysOf returns those of Keys that m promises to have: of the trees that it has
// an http or https address for, what it carries.
func KeysOf(n *schema.Network, m *schema.Mirror) []state.Key {
	return carried(n, m, Keys(n))
}

// ISOKeysOf returns the ISO sets that m promises to have.
func ISOKeysOf(n *schema.Network, m *schema.Mirror) []state.Key {
	if m.Carries.NoISOs {
		return nil
	}
	return carried(n, m, ISOKeys(n))
}

// carried returns those of keys that m promises to have.
func carried(n *schema.Network, m *schema.Mirror, keys []state.Key) []state.Key {
	return slices.DeleteFunc(keys, func(k state.Key) bool {
		a := m.AddressOf(n, k.Version)
		return a.HTTP == "" && a.HTTPS == "" || !m.Carries.Has(n, k.Version, k.Arch)
	})
}

// RepoURL returns where the repository k is below base, the URL of a tree; it
// ends in "/". For the key of an ISO set it returns the directory of the images.
// It is "" for a repository that n does not have.
func RepoURL(base string, n *schema.Network, k state.Key) string {
	path := isos + "/" + string(k.Arch) + "/"
	if k.Repo != isos {
		r, ok := n.Repo(k.Repo)
		if !ok {
			return ""
		}
		path = r.PathFor(k.Arch)
	}
	if !strings.HasSuffix(path, "/") {
		path += "/"
	}
	return base + string(k.Version) + "/" + path
}

// sortedKeys returns the keys of m in an order that stays the same.
func sortedKeys[V any](m map[state.Key]V) []state.Key {
	return slices.SortedFunc(maps.Keys(m), compareKeys)
}

func compareKeys(a, b state.Key) int {
	return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.Repo, b.Repo), cmp.Compare(a.Arch, b.Arch))
}
