package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"meridian/internal/testworld"
	"meridian/mirrorlist/geo/geotest"
)

// A world is a network as files: what a real server reads. The databases and the
// cache of the server are of full size and stay between runs.
type world struct {
	dir    string
	config string // the settings file
	addr   string // what the server listens on
}

const (
	worldMirrors  = 600
	worldDeclared = 2000   // subnets in the files of mirrors, as there are in real ones: few
	worldRanges   = 38_000 // ranges in the files of cloud providers: most subnets are theirs
)

// worldVersion is part of the directory's name. It changes with what is in it.
const worldVersion = 2

// newWorld writes the files, unless they are there from an earlier run. What is
// read must not be newer than the cache that was made of it.
func newWorld() (*world, error) {
	cache, err := geotest.CacheDir()
	if err != nil {
		return nil, err
	}
	location, asn, err := geotest.Full.MMDBs(cache)
	if err != nil {
		return nil, err
	}
	w := &world{dir: filepath.Join(cache, fmt.Sprintf("server-v%d", worldVersion))}
	w.config = filepath.Join(w.dir, "mirrorlist.yml")
	if w.addr, err = testworld.FreeAddr("127.0.0.1"); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(w.dir, "complete")); errors.Is(err, fs.ErrNotExist) {
		if err := w.write(); err != nil {
			return nil, err
		}
	}
	settings := fmt.Sprintf(`listen: %s
network: network.yml
geo: {location: %s, asn: %s}
cloud_ranges: {aws: aws.json, azure: azure.json}
trusted_proxies: [127.0.0.0/8]
cache_dir: cache
`, w.addr, location, asn)
	return w, os.WriteFile(w.config, []byte(settings), 0o644)
}

// url is a page of the server.
func (w *world) url(path string) string { return "http://" + w.addr + path }

// serve starts the server, and waits until it is ready.
func (w *world) serve(ctx context.Context, program string) (*process, error) {
	p, err := spawn(ctx, program, "serve", "-config", w.config)
	if err != nil {
		return nil, err
	}
	if err := p.ready(ctx, w.url("/readyz")); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (w *world) write() error {
	if err := os.MkdirAll(filepath.Join(w.dir, "mirrors.d"), 0o755); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(11, 12))
	files := map[string]string{"network.yml": networkFile(), "complete": ""}
	addrs := geotest.Clients(worldMirrors, 13)
	for i, a := range addrs {
		name := fmt.Sprintf("mirror-%04d.example.org", i)
		files["mirrors.d/"+name+".yml"] = mirrorFile(rng, i, name, a)
	}
	for provider, text := range providerFiles(rng) {
		files[provider+".json"] = text
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// networkFile is a network of 144 repositories: 8 in each of 18 trees.
func networkFile() string {
	var b strings.Builder
	b.WriteString(`config_version: 3
allowed_outdate: 12h
mirrors_dir: mirrors.d
versions: ["8", "8.10", "9", "9.8", "10", "10.2"]
optional_module_versions: {kitten: ["10"]}
duplicated_versions: {"8": "8.10", "9": "9.8", "10": "10.2"}
vault_versions: ["9.7"]
vault_mirror: https://vault.example.org/
arches:
  "8": [x86_64, aarch64, ppc64le, s390x]
  "9": [x86_64, aarch64, ppc64le, s390x]
  "10": [x86_64, x86_64_v2, aarch64, ppc64le, s390x]
  10-kitten: [x86_64, x86_64_v2, aarch64, ppc64le, s390x]
required_protocols: [http, https]
repos:
`)
	for _, name := range []string{"BaseOS", "AppStream", "CRB", "extras", "HighAvailability", "NFV", "RT", "plus"} {
		fmt.Fprintf(&b, "  - {name: %s, path: %s/$basearch/os/}\n", strings.ToLower(name), name)
	}
	return b.String()
}

// mirrorFile is the file of mirror number i, as an operator writes it. Its host
// is a literal address, which nobody has to look up.
func mirrorFile(rng *rand.Rand, i int, name string, a netip.Addr) string {
	var b strings.Builder
	host := a.String()
	if a.Is6() {
		host = "[" + host + "]"
	}
	fmt.Fprintf(&b, "---\nname: %s\naddress:\n  http: http://%s/almalinux/\n  https: https://%s/almalinux/\n  rsync: rsync://%s/almalinux/\n", name, host, host, host)
	if i%3 == 0 {
		fmt.Fprintf(&b, "address_optional:\n  kitten:\n    https: https://%s/almalinux-kitten/\n", host)
	}
	country := []string{"DE", "US", "FR", "CN", "GB", "BR", "IN", "ZA", "AU", "JP", "NL", "SE"}[rng.IntN(12)]
	fmt.Fprintf(&b, "update_frequency: 3h\nsponsor: Sponsor %d\nsponsor_url: https://example.org/\nemail: admin@example.org\n", i)
	fmt.Fprintf(&b, "geolocation:\n  continent: EU\n  country: %s\n  state_province: State\n  city: City\n", country)
	if i%2 == 0 {
		fmt.Fprintf(&b, "  latitude: %.4f\n  longitude: %.4f\n", rng.Float64()*120-60, rng.Float64()*340-170)
	}
	switch {
	case i < 20:
		b.WriteString("private: true\nsubnets:\n")
		for _, p := range prefixes(rng, worldDeclared/20) {
			fmt.Fprintf(&b, "  - %s\n", p)
		}
	case i < 30:
		fmt.Fprintf(&b, "private: true\nmonopoly: true\ncloud_type: %s\ncloud_regions: [region-%d]\n", []string{"aws", "azure"}[i%2], i%8)
	case i%10 == 0:
		fmt.Fprintf(&b, "asn: %d\n", 1+rng.IntN(80_000))
	}
	return b.String()
}

// providerFiles are the published ranges of two clouds, in their own formats.
func providerFiles(rng *rand.Rand) map[string]string {
	type object = map[string]any
	var aws, aws6, azure []object
	tags := map[int][]string{} // one of azure's has many prefixes
	for i, p := range prefixes(rng, worldRanges) {
		region := fmt.Sprintf("region-%d", i%8)
		switch {
		case i%4 != 0:
			tags[i/4%1000] = append(tags[i/4%1000], p.String())
		case p.Addr().Is6():
			aws6 = append(aws6, object{"ipv6_prefix": p.String(), "region": region, "service": "AMAZON", "network_border_group": region})
		default:
			aws = append(aws, object{"ip_prefix": p.String(), "region": region, "service": "AMAZON", "network_border_group": region})
		}
	}
	for i := range len(tags) {
		region := fmt.Sprintf("region-%d", i%8)
		azure = append(azure, object{"name": "AzureCloud." + region, "properties": object{"region": region, "addressPrefixes": tags[i]}})
	}
	files := map[string]string{}
	for name, content := range map[string]object{
		"aws":   {"syncToken": "1", "prefixes": aws, "ipv6_prefixes": aws6},
		"azure": {"changeNumber": 1, "cloud": "Public", "values": azure},
	} {
		text, err := json.Marshal(content)
		if err != nil {
			panic(err) // maps of strings
		}
		files[name] = string(text)
	}
	return files
}

// prefixes are n networks of the sizes that organisations have.
func prefixes(rng *rand.Rand, n int) []netip.Prefix {
	list := make([]netip.Prefix, n)
	for i, a := range geotest.Clients(n, rng.Uint64()) {
		bits := 18 + rng.IntN(11)
		if a.Is6() {
			bits = 36 + rng.IntN(21)
		}
		list[i] = netip.PrefixFrom(a, bits).Masked()
	}
	return list
}
