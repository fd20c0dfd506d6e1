// Package schema is the vocabulary of a mirror network: what its operators and
// release managers promise in YAML. It reads config.yml (version 3) and the
// files of mirrors.d, reports everything that is wrong with them, and never
// says what is true of a mirror now: that is checker/state.
package schema

import (
	"net/netip"
	"time"
)

// A Version names one release of the distribution as it stands in a URL: "9.8",
// "10.2-beta", or "10-kitten" for a version of an optional module.
type Version string

// An Arch is an RPM base architecture: "x86_64", "aarch64".
type Arch string

// Network is the file that describes the whole network: config.yml, version 3.
type Network struct {
	// AllowedOutdate is how long after a publication an older generation may
	// still be handed out.
	AllowedOutdate time.Duration

	// MirrorsDir holds one file a mirror. LoadNetwork makes it relative to the
	// directory of the network file unless it is absolute.
	MirrorsDir string

	// Versions are served from the mirrors, and include the aliases.
	Versions []Version

	// Aliases maps a version that clients ask for to the one whose directory
	// they get: "9" → "9.8" (key duplicated_versions). That one is never an alias
	// of another; it may be in the vault, or of a module.
	Aliases map[Version]Version

	// Modules are the optional trees beside the main one, by name, in the order
	// of the file: kitten → "10" is the version "10-kitten" (key
	// optional_module_versions).
	Modules []Module

	// Vault versions, and repos marked Vault, are served from VaultMirror alone.
	Vault       []Version
	VaultMirror string // a base URL, ends in "/"

	// Arches by version, major version or module version: see ArchesOf.
	Arches map[Version][]Arch

	// RequiredProtocols: a mirror has at least one of these ("http", "https").
	RequiredProtocols []string

	// Repos in the order of the file.
	Repos []Repo

	// path of the file, and dirLine where mirrors_dir stands in it: for
	// LintFiles, and known only to LintNetwork.
	path    string
	dirLine int
}

// A Module is an optional tree that a mirror may carry beside the main one.
type Module struct {
	Name     string    // "kitten"
	Versions []Version // the full form, "10-kitten"
}

// A Repo is one repository of every version that it is in.
type Repo struct {
	Name string // "baseos"

	// Path below the version's directory, with a literal $basearch when the
	// repository is per arch. Kept as written but for a leading "/".
	Path string

	// Versions and Arches that have this repository; empty means all.
	Versions []Version
	Arches   []Arch

	// Vault: kept on the vault mirror alone.
	Vault bool
}

// Mirror is one file of mirrors.d: what its operator promises.
type Mirror struct {
	// Name identifies the mirror; by convention its host name.
	Name string

	// File is the base name of the file it was read from.
	File string

	// Address of the main tree, and of each optional module by its name.
	Address         Address
	AddressOptional map[string]Address

	// UpdateFrequency is how often the mirror syncs. Default 3h.
	UpdateFrequency time.Duration

	Sponsor    string
	SponsorURL string // "" or a URL with scheme
	Email      string // never leaves the server

	Location Location

	// Private mirrors are listed only to clients inside their Subnets, ASN or
	// cloud. A Monopoly mirror is the only one its own clients are given.
	Private  bool
	Monopoly bool

	// Subnets whose clients are sent here first, masked; SubnetsURL names a JSON
	// list of them instead.
	Subnets    []netip.Prefix
	SubnetsURL string

	// ASN are autonomous systems whose clients are sent here.
	ASN []uint32

	// CloudType is "aws", "azure", "gcp" or "oci" for a mirror inside a cloud,
	// else "". Such a mirror is listed only to clients in CloudRegions;
	// AllRegions stands for [all].
	CloudType    string
	CloudRegions []string
	AllRegions   bool

	// Bandwidth in Mbit/s: its weight among equals. Never 0; default 1000.
	Bandwidth int

	// Anycast: a CDN, near everywhere. Last in its band, no ASN match.
	Anycast bool

	// Carries restricts what a partial mirror has; the zero value is everything.
	Carries Carries

	// path of the file as it was named to the loader, and lines where each key
	// and each of Subnets stands in it: for Lint.
	path        string
	lines       lines
	subnetLines []int
}

// DefaultBandwidth is the bandwidth, in Mbit/s, of a mirror that names none.
const DefaultBandwidth = 1000

// DefaultUpdateFrequency is that of a mirror that names none.
const DefaultUpdateFrequency = 3 * time.Hour

// Address holds the base URLs of one tree, by scheme. Each is empty or ends in
// "/".
type Address struct {
	HTTP, HTTPS, Rsync, FTP string
}

// Location is where an operator says the mirror is.
type Location struct {
	Continent string // two letters, "EU", or ""
	Country   string // ISO 3166-1 alpha-2 in capitals, or ""
	State     string
	City      string

	// Latitude and Longitude in degrees; meaningful only when HasCoordinates.
	Latitude, Longitude float64
	HasCoordinates      bool
}

// Carries says what a partial mirror has. Empty lists mean all.
type Carries struct {
	Versions []Version // aliases and major versions stand for what they name
	Arches   []Arch
	NoISOs   bool // carries.isos: false

	// Nothing: what the mirror has was written down and cannot be read. It may
	// lack whatever it is asked for, so it is listed for nothing until its file
	// is corrected. The lists are empty then, and NoISOs is set.
	Nothing bool
}
