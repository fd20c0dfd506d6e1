package main

import (
	"fmt"
	"os"
	"strings"

	"meridian/internal/testworld"
)

// A view is a place to ask for a list from.
type view struct {
	from string

	// source is the loopback address to ask from, or "" and forwarded is the
	// client that a proxy speaks for; both "" ask from nowhere in particular.
	source, forwarded string

	// first are the mirrors of which one must come first; empty: any.
	first []string
}

var views = []view{
	{from: "Berlin: two mirrors are near, and one has ten times the bandwidth", source: "127.0.1.1",
		first: []string{"mirror.berlin.example.org", "mirror.leipzig.example.org"}},
	{from: "New York: the own country first, however far", source: "127.0.3.1",
		first: []string{"mirror.newyork.example.org"}},
	{from: "Tokyo, through a proxy that the server trusts", forwarded: "203.0.113.7",
		first: []string{"mirror.tokyo.example.org"}},
	{from: "a campus in London with a mirror of its own", forwarded: "2001:db8:2::7",
		first: []string{campus}},
	{from: "an address without a place: all public mirrors, shuffled"},
}

// listPath is the list that the screen shows.
const listPath = "mirrorlist/9/baseos?arch=x86_64"

// pages are what there is to open, below the URL of the server.
var pages = []struct{ path, what string }{
	{"", "the mirrors and how they are; the other pages are linked from it"},
	{"mirrors/mirror.sanfrancisco.example.org", "a broken mirror: what is wrong, the request that shows it, what to do"},
	{"explain?ip=203.0.113.7&version=9&repo=baseos&arch=x86_64", "why Tokyo gets what it gets"},
	{listPath, "a list, as dnf gets it"},
	{"metalink/9/baseos?arch=x86_64", "the same with the hashes of what tier0 has published"},
	{"mirrorlist/10-kitten/appstream", "the optional module; $basearch is for dnf to fill in"},
	{"mirrorlist/9.7/baseos?arch=x86_64", "an old version: the vault alone"},
	{"isolist/9/x86_64", "who has the images"},
	{"api/v1/openapi.json", "the API, for programs"},
}

// curl is the line that shows the list as v gets it.
func (v view) curl(url string) string {
	var option string
	switch {
	case v.source != "":
		option = "--interface " + v.source + " "
	case v.forwarded != "":
		option = "-H 'X-Forwarded-For: " + v.forwarded + "' "
	}
	return "curl " + option + quote(url+listPath)
}

// installLine installs a package through the server into a root of its own, and
// lookLine shows that it is there.
func (d *demo) installLine() string {
	return shellLine(append([]string{"dnf"}, d.client.Args("install", demoPackage)...))
}

func (d *demo) lookLine() string {
	return shellLine([]string{"rpm", "--root=" + d.client.Root(), "--query", demoPackage})
}

const demoPackage = "meridian-hello"

// shellLine is a command that can be pasted. Who is not root becomes root in a
// namespace of their own, without which rpm installs nothing anywhere.
func shellLine(args []string) string {
	if os.Geteuid() != 0 {
		args = append([]string{"unshare", "--map-root-user"}, args...)
	}
	var quoted []string
	for _, arg := range args {
		quoted = append(quoted, quote(arg))
	}
	return strings.Join(quoted, " ")
}

// quote is arg as the shell must be given it.
func quote(arg string) string {
	if arg != "" && strings.Trim(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+/.,:@%") == "" {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

// show prints what there is to see.
func (d *demo) show() {
	p := func(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

	p("\nA mirror network is running on this machine.")

	p("\nTO OPEN")
	for _, page := range pages {
		p("  %s%s\n      %s", d.url, page.path, page.what)
	}

	p("\nTO PASTE: the list as it is seen from")
	for _, v := range views {
		p("  %s\n      %s", v.from, v.curl(d.url))
	}

	p("\nTO PASTE: a real client, in a root of its own")
	if err := testworld.Programs("dnf"); err != nil {
		p("  (%v)", err)
	}
	p("      %s\n      %s", d.installLine(), d.lookLine())

	p("\nMIRRORS, as they are. What the checker finds out about them is on %smirrors/NAME", d.url)
	for i, site := range sites {
		p("  %-31s %-24s %s", site.name, d.mirrors[i+1].URL(), site.condition)
	}
	p("  %-31s %-24s %s", "tier0", d.mirrors[0].URL(), "two generations, both signed; the vault too")

	mirrored, _ := d.trees()
	p("\nTO PASTE: is a tree what its publisher says?")
	p("      %s", shellLine([]string{d.path("bin", "syncer"), "verify", d.path("tier0", mirrored[0])}))

	p("\nSettings: %s", d.path("etc"))
	p("Ctrl-C ends it all.")
}
