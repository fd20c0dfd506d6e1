package main

import (
	"fmt"
	"net/netip"

	"meridian/checker/state"
	"meridian/internal/testworld"
	"meridian/schema"
)

// A condition is how a mirror of the demo fares.
type condition int

const (
	fresh   condition = iota // follows tier0
	lagging                  // stopped to follow after the first generation
	broken                   // answers everything with a web page
	offline                  // does not listen at all
)

func (c condition) String() string {
	return [...]string{
		"follows tier0",
		"lagging: stopped to follow after generation 1",
		"broken: a web page for everything",
		"offline: refuses connections",
	}[c]
}

// verdict is what the checker says of it.
func (c condition) verdict() state.Health {
	return [...]state.Health{state.Fresh, state.Lagging, state.Broken, state.Down}[c]
}

// sites are the mirrors of the demo. Each listens on an address that the demo
// database takes to be in its city, so that one can ask from there as well.
var sites = []struct {
	name      string
	host      string
	condition condition
	location  schema.Location
	edit      func(*schema.Mirror)
}{
	{"mirror.berlin.example.org", "127.0.1.10", fresh, at("DE", "Berlin", 52.5200, 13.4050), nil},
	{"mirror.leipzig.example.org", "127.0.1.11", fresh, at("DE", "Leipzig", 51.3397, 12.3731), bandwidth(10_000)},
	{"mirror.london.example.org", "127.0.2.10", lagging, at("GB", "London", 51.5074, -0.1278), nil},
	{"mirror.newyork.example.org", "127.0.3.10", fresh, at("US", "New York", 40.7128, -74.0060), nil},
	{"mirror.sanfrancisco.example.org", "127.0.4.10", broken, at("US", "San Francisco", 37.7749, -122.4194), nil},
	{"mirror.saopaulo.example.org", "127.0.5.10", offline, at("BR", "São Paulo", -23.5505, -46.6333), nil},
	{"mirror.tokyo.example.org", "127.0.6.10", fresh, at("JP", "Tokyo", 35.6762, 139.6503), nil},
	{"mirror.mumbai.example.org", "127.0.7.10", offline, at("IN", "Mumbai", 19.0760, 72.8777), nil},
	{"mirror.sydney.example.org", "127.0.8.10", fresh, at("AU", "Sydney", -33.8688, 151.2093), nil},
	{"mirror.capetown.example.org", "127.0.9.10", offline, at("ZA", "Cape Town", -33.9249, 18.4241), nil},
	{campus, "127.0.2.20", fresh, at("GB", "London", 51.5246, -0.1340), func(m *schema.Mirror) {
		m.Private = true
		m.Subnets = []netip.Prefix{netip.MustParsePrefix("2001:db8:2::/48"), netip.MustParsePrefix("127.0.2.128/25")}
	}},
}

// campus is the private mirror, for the clients of its own subnets alone.
const campus = "mirror.campus.example.org"

// vaultHost keeps what mirrors no longer carry.
const vaultHost = "127.0.9.20"

func at(country, city string, lat, lon float64) schema.Location {
	return schema.Location{Country: country, City: city, Latitude: lat, Longitude: lon, HasCoordinates: true}
}

func bandwidth(mbits int) func(*schema.Mirror) {
	return func(m *schema.Mirror) { m.Bandwidth = mbits }
}

// vaultRepositories are the two that the vault of the demo has.
func vaultRepositories() []testworld.Repository {
	var all []testworld.Repository
	for _, arch := range []schema.Arch{"x86_64", "aarch64"} {
		all = append(all, testworld.Repository{
			Version: "9.7", Repo: "baseos", Arch: arch, Module: "vault",
			Path: fmt.Sprintf("9.7/BaseOS/%s/os", arch),
		})
	}
	return all
}
