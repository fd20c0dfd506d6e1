package schema

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// plainMirror is three lines; what a test appends begins in line 4.
const plainMirror = "name: mirror.example.org\naddress:\n  https: https://mirror.example.org/almalinux/\n"

// said returns problems as the tests write them: without the file, and with "E"
// or "W" in front.
func said(ps []Problem) (all []string) {
	for _, p := range ps {
		severity := "W"
		if p.Error {
			severity = "E"
		}
		all = append(all, severity+" "+strings.TrimPrefix(p.String(), p.File))
	}
	return all
}

func compareSaid(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot\n\t%s\nwant\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// A quirk is a text, what is said about it, and one thing that is read from it.
type quirk struct {
	name string
	text string
	said []string
	of   func(*Mirror) any // nil: the mirror is not usable
	want string            // fmt.Sprint of it
}

// quirks are every way in which the 530 files of a real network depart from the
// format, and the ways in which the next ones will.
func quirks() []quirk {
	country := func(m *Mirror) any { return m.Location.Country }
	address := func(m *Mirror) any { return m.Address }
	subnets := func(m *Mirror) any { return m.Subnets }
	asn := func(m *Mirror) any { return m.ASN }
	every := func(m *Mirror) any { return FormatDuration(m.UpdateFrequency) }
	name := func(m *Mirror) any { return m.Name }
	clouds := func(m *Mirror) any { return fmt.Sprintf("%s %v %t", m.CloudType, m.CloudRegions, m.AllRegions) }
	bandwidth := func(m *Mirror) any { return m.Bandwidth }
	private := func(m *Mirror) any { return m.Private }
	carries := func(m *Mirror) any { return fmt.Sprintf("%+v", m.Carries) }
	position := func(m *Mirror) any {
		return fmt.Sprint(m.Location.HasCoordinates, m.Location.Latitude, m.Location.Longitude)
	}

	return []quirk{
		{
			name: "a plain file has nothing wrong with it",
			text: plainMirror, of: address, want: "{ https://mirror.example.org/almalinux/  }",
		},
		{
			name: "document markers and a missing newline at the end are fine",
			text: "---\n" + plainMirror + "sponsor: Example\n...",
			of:   func(m *Mirror) any { return m.Sponsor }, want: "Example",
		},
		{
			name: "lines may end in CR LF",
			text: strings.ReplaceAll(plainMirror+"geolocation:\n  country: AT\n  city: Wien\n", "\n", "\r\n"),
			of:   func(m *Mirror) any { return m.Location.City + m.Name + m.Address.HTTPS }, want: "Wienmirror.example.orghttps://mirror.example.org/almalinux/",
		},
		{
			name: "a byte order mark is skipped",
			text: "\ufeff" + plainMirror, of: name, want: "mirror.example.org",
		},
		{
			name: "Latin-1 is read as such",
			text: plainMirror + "geolocation:\n  city: K\xf6ln\n",
			said: []string{"W :5: a letter here is not UTF-8 and is read as Latin-1; save the file as UTF-8"},
			of:   func(m *Mirror) any { return m.Location.City }, want: "Köln",
		},
		{
			name: "UTF-16 is refused",
			text: "\xff\xfen\x00a\x00",
			said: []string{"E :1: the file is UTF-16; save it as UTF-8"},
		},
		{
			name: "a tab that indents is named, not what the parser makes of it",
			text: "name: mirror.example.org\naddress:\n\thttps: https://mirror.example.org/\n",
			said: []string{"E :3: a tab indents this line; write spaces"},
		},
		{
			name: "an empty file is refused",
			text: "", said: []string{"E : the file is empty; write at least its required keys"},
		},
		{
			name: "a file of comments is empty",
			text: "# nothing\n---\n", said: []string{"E : the file is empty; write at least its required keys"},
		},
		{
			name: "of two documents the first counts",
			text: plainMirror + "---\nname: other.example.org\n",
			said: []string{"E :5: a second document begins here and is left out; put it into a file of its own"},
			of:   name, want: "mirror.example.org",
		},
		{
			name: "an empty second document is only a stray line",
			text: plainMirror + "---\n",
			said: []string{"W :5: a second, empty document begins here; remove the line ---"},
			of:   name, want: "mirror.example.org",
		},
		{
			name: "a repeated key leaves the mirror out, because nobody knows which one is meant",
			text: plainMirror + "sponsor: A\nsponsor: B\n",
			said: []string{`E :5: the key "sponsor" is repeated; it stands in line 4 already; remove one of the two`},
		},
		{
			name: "a repeated key inside a group is found too",
			text: plainMirror + "geolocation:\n  country: AT\n  country: DE\n",
			said: []string{`E :6: the key "country" is repeated; it stands in line 5 already; remove one of the two`},
		},
		{
			name: "a file that is a list is refused",
			text: "- a\n- b\n", said: []string{`E :1: the file is not a list of keys; write "key: value" lines`},
		},
		{
			name: "a value with a colon needs quotes",
			text: plainMirror + "sponsor: Example: the sponsor\n",
			said: []string{"E :4: a second colon in one line, or a line indented too far; put quotes around the value, or align the line with the one before"},
		},
		{
			name: "a value that begins with @ needs quotes",
			text: plainMirror + "sponsor: @example\n",
			said: []string{"E :4: a value begins with a character that means something in YAML; put quotes around the value"},
		},
		{
			name: "a value that begins with * needs quotes",
			text: plainMirror + "sponsor: *example\n",
			said: []string{"E : a value begins with *, which names an anchor that is not there; put quotes around the value"},
		},
		{
			name: "a mirror without a name is not usable",
			text: "address:\n  http: http://mirror.example.org/\n",
			said: []string{"E :1: name: the mirror has no name; write name: and the mirror's host name"},
		},
		{
			name: "a mirror without http and https is not usable",
			text: "name: mirror.example.org\naddress:\n  rsync: rsync://mirror.example.org/almalinux/\n",
			said: []string{"E :3: address: the mirror has neither an http nor an https URL; write https: https://HOST/PATH/ below address"},
		},
		{
			name: "a name with a slash could not stand in a URL",
			text: "name: a/b\naddress:\n  http: http://mirror.example.org/\n",
			said: []string{`E :1: name: "a/b" cannot name a mirror; write the mirror's host name`},
		},
		{
			name: "a name that is no host name still names the mirror",
			text: "name: Example Mirror\naddress:\n  http: http://mirror.example.org/\n",
			said: []string{`W :1: name: "Example Mirror" is not a host name; write the mirror's host name`},
			of:   name, want: "Example Mirror",
		},
		{
			name: "space around a quoted value is removed",
			text: "name: \"mirror.example.org \"\naddress:\n  http: http://mirror.example.org/\n",
			said: []string{"W :1: name: space around the value; remove it"},
			of:   name, want: "mirror.example.org",
		},
		{
			name: "space behind a plain value is nothing",
			text: "name: mirror.example.org \naddress:\n  http: http://mirror.example.org/a/ \n",
			of:   address, want: "{http://mirror.example.org/a/   }",
		},

		// Keys.
		{
			name: "a key in capitals is read",
			text: plainMirror + "geolocation:\n  country: AT\n  City: Wien\n",
			said: []string{`W :6: geolocation.City: "City" is read as "city"; write city`},
			of:   func(m *Mirror) any { return m.Location.City }, want: "Wien",
		},
		{
			name: "a key in capitals does not replace the right one",
			text: plainMirror + "sponsor: A\nSponsor: B\n",
			said: []string{`W :5: Sponsor: unknown key "Sponsor" is not read; write sponsor`},
			of:   func(m *Mirror) any { return m.Sponsor }, want: "A",
		},
		{
			name: "an unknown key is reported with the nearest one",
			text: plainMirror + "address_options:\n  kitten:\n    http: http://mirror.example.org/k/\n",
			said: []string{`W :4: address_options: unknown key "address_options" is not read; write address_optional`},
			of:   func(m *Mirror) any { return len(m.AddressOptional) }, want: "0",
		},
		{
			name: "an unknown key like no other is reported with those there are",
			text: plainMirror + "carries:\n  colour: blue\n  isos: true\n",
			said: []string{`W :5: carries.colour: unknown key "colour" is not read; remove it; the keys here are versions, arches, isos`},
			of:   name, want: "mirror.example.org",
		},
		{
			name: "a key that is indented too far is sent home",
			text: plainMirror + "geolocation:\n  country: AT\n  asn: 64496\n",
			said: []string{`W :6: geolocation.asn: "asn" does not belong here and is not read; write it without indentation`},
			of:   asn, want: "[]",
		},
		{
			name: "a key that is not indented is sent home",
			text: plainMirror + "country: AT\n",
			said: []string{`W :4: country: "country" does not belong here and is not read; write it below geolocation`},
			of:   country, want: "",
		},
		{
			name: "a key without a value is absent",
			text: plainMirror + "asn:\nsubnets:\nprivate:\ngeolocation:\n",
			of:   private, want: "false",
		},
		{
			name: "an anchor and a merge key are followed",
			text: plainMirror + "address_optional:\n  kitten: &k\n    http: http://mirror.example.org/k/\n  other:\n    <<: *k\n    rsync: rsync://mirror.example.org/o/\n",
			of:   func(m *Mirror) any { return m.AddressOptional["other"] }, want: "{http://mirror.example.org/k/  rsync://mirror.example.org/o/ }",
		},

		// URLs.
		{
			name: "a missing slash is added without a word",
			text: "name: mirror.example.org\naddress:\n  http: http://mirror.example.org\n  https: https://mirror.example.org/almalinux\n",
			of:   address, want: "{http://mirror.example.org/ https://mirror.example.org/almalinux/  }",
		},
		{
			name: "an https URL under http moves to https",
			text: "name: mirror.example.org\naddress:\n  http: https://mirror.example.org/almalinux/\n",
			said: []string{`W :3: address.http: an https URL under http is read as https; write https: in front of it, or a URL that begins http://`},
			of:   address, want: "{ https://mirror.example.org/almalinux/  }",
		},
		{
			name: "a URL under the wrong scheme that stands under the right one is said twice",
			text: "name: mirror.example.org\naddress:\n  http: http://mirror.example.org/a/\n  https: http://mirror.example.org/a\n",
			said: []string{`W :4: address.https: the http URL stands here again; write a URL that begins https://, or remove the line`},
			of:   address, want: "{http://mirror.example.org/a/   }",
		},
		{
			name: "a URL under the wrong scheme does not replace the right one",
			text: "name: mirror.example.org\naddress:\n  http: http://mirror.example.org/a/\n  ftp: http://mirror.example.org/b/\n",
			said: []string{`W :4: address.ftp: a second http URL is not read; write a URL that begins ftp://, or remove the line`},
			of:   address, want: "{http://mirror.example.org/a/   }",
		},
		{
			name: "exchanged URLs change places",
			text: "name: mirror.example.org\naddress:\n  http: https://mirror.example.org/a/\n  https: http://mirror.example.org/b/\n",
			said: []string{
				`W :3: address.http: an https URL under http is read as https; write https: in front of it, or a URL that begins http://`,
				`W :4: address.https: an http URL under https is read as http; write http: in front of it, or a URL that begins https://`,
			},
			of: address, want: "{http://mirror.example.org/b/ https://mirror.example.org/a/  }",
		},
		{
			name: "rsync's own way to name a module is understood",
			text: plainMirror + "  rsync: mirror.example.org::almalinux\n",
			said: []string{`W :4: address.rsync: "mirror.example.org::almalinux" is not a URL; write rsync://mirror.example.org/almalinux/`},
			of:   address, want: "{ https://mirror.example.org/almalinux/ rsync://mirror.example.org/almalinux/ }",
		},
		{
			name: "rsync's own way behind a scheme is understood",
			text: plainMirror + "  rsync: rsync://mirror.example.org::almalinux/x\n",
			said: []string{`W :4: address.rsync: "rsync://mirror.example.org::almalinux/x" is not a URL; write rsync://mirror.example.org/almalinux/x/`},
			of:   address, want: "{ https://mirror.example.org/almalinux/ rsync://mirror.example.org/almalinux/x/ }",
		},
		{
			name: "a URL without a scheme gets that of its key",
			text: plainMirror + "  ftp: ftp.example.org/pub\n",
			said: []string{`W :4: address.ftp: "ftp.example.org/pub" has no scheme; write ftp://ftp.example.org/pub/`},
			of:   address, want: "{ https://mirror.example.org/almalinux/  ftp://ftp.example.org/pub/}",
		},
		{
			name: "a port, an IPv6 address and capitals are fine",
			text: "name: mirror.example.org\naddress:\n  http: HTTP://Mirror.Example.org:8080/Alma\n  https: https://[2001:db8::1]/\n",
			of:   address, want: "{http://mirror.example.org:8080/Alma/ https://[2001:db8::1]/  }",
		},
		{
			name: "a URL may not smuggle a second line into a list",
			text: plainMirror + "  http: \"http://mirror.example.org/\\nhttp://evil.example.org/\"\n",
			said: []string{`E :4: address.http: "http://mirror.example.org/\nhttp://evil.example.org/": the URL holds '\n'; write letters, digits and -._~/:% only, and a host in its xn-- form`},
			of:   address, want: "{ https://mirror.example.org/almalinux/  }",
		},
		{
			name: "a password would be published",
			text: plainMirror + "  http: http://me:secret@mirror.example.org/\n",
			said: []string{`E :4: address.http: "http://me:secret@mirror.example.org/": the URL holds a user name, which everybody would see; write it without`},
			of:   address, want: "{ https://mirror.example.org/almalinux/  }",
		},
		{
			name: "nothing can be appended to a query",
			text: plainMirror + "  http: http://mirror.example.org/?repo=\n",
			said: []string{`E :4: address.http: "http://mirror.example.org/?repo=": nothing can be appended to a URL with ? or #; write a URL that ends in a path`},
			of:   address, want: "{ https://mirror.example.org/almalinux/  }",
		},
		{
			name: "another scheme is not a mirror's",
			text: plainMirror + "  http: gopher://mirror.example.org/\n",
			said: []string{`E :4: address.http: "gopher://mirror.example.org/": "gopher" is not a scheme of a mirror; write an http, https, rsync or ftp URL`},
			of:   address, want: "{ https://mirror.example.org/almalinux/  }",
		},
		{
			name: "a URL needs a host",
			text: plainMirror + "  http: http:///almalinux/\n",
			said: []string{`E :4: address.http: "http:///almalinux/": "" is not a host name; write http://HOST/PATH/`},
			of:   address, want: "{ https://mirror.example.org/almalinux/  }",
		},
		{
			name: "a scheme with one slash is no host",
			text: plainMirror + "  http: http:/mirror.example.org/\n",
			said: []string{`E :4: address.http: "http:/mirror.example.org/": "http:" is not a host name; write http://HOST/PATH/`},
			of:   address, want: "{ https://mirror.example.org/almalinux/  }",
		},
		{
			name: "a URL has an end",
			text: plainMirror + "  http: http://mirror.example.org/" + strings.Repeat("a/", 300) + "\n",
			said: []string{`E :4: address.http: "http://mirror.example.org/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/…": the URL is longer than 500 letters; write a shorter one`},
			of:   address, want: "{ https://mirror.example.org/almalinux/  }",
		},
		{
			name: "a URL instead of a group of keys is taken by its scheme",
			text: "name: mirror.example.org\naddress: http://mirror.example.org/almalinux\n",
			said: []string{`W :2: address: a URL where a group of keys belongs; write http: http://mirror.example.org/almalinux/ below it`},
			of:   address, want: "{http://mirror.example.org/almalinux/   }",
		},
		{
			name: "a module's URLs have a module around them",
			text: plainMirror + "address_optional:\n  http: http://mirror.example.org/k/\n",
			said: []string{`W :5: address_optional.http: "http" is not the name of a module; write the name of the module, and indent the URLs below it`},
			of:   func(m *Mirror) any { return len(m.AddressOptional) }, want: "0",
		},
		{
			name: "a sponsor's address gets a scheme",
			text: plainMirror + "sponsor_url: www.example.org\n",
			said: []string{`W :4: sponsor_url: "www.example.org" has no scheme; write https://www.example.org`},
			of:   func(m *Mirror) any { return m.SponsorURL }, want: "https://www.example.org",
		},
		{
			name: "a sponsor's address cannot be a script",
			text: plainMirror + "sponsor_url: javascript:alert(1)\n",
			said: []string{`E :4: sponsor_url: "javascript:alert(1)" is not a web address; write https://HOST/`},
			of:   func(m *Mirror) any { return m.SponsorURL }, want: "",
		},
		{
			name: "an e-mail address is one",
			text: plainMirror + "email: see web page\n",
			said: []string{`E :4: email: "see web page" is not an e-mail address; write one address, such as mirror-admin@example.org`},
			of:   func(m *Mirror) any { return m.Email }, want: "",
		},

		// Places.
		{
			name: "UK means GB",
			text: plainMirror + "geolocation:\n  country: UK\n",
			said: []string{`W :5: geolocation.country: "UK" is not a country code; write "GB"`},
			of:   country, want: "GB",
		},
		{
			name: "a country's name means its code",
			text: plainMirror + "geolocation:\n  country: south korea\n",
			said: []string{`W :5: geolocation.country: "south korea" is not a country code; write "KR"`},
			of:   country, want: "KR",
		},
		{
			name: "a code in small letters means it in capitals",
			text: plainMirror + "geolocation:\n  country: de\n",
			said: []string{`W :5: geolocation.country: "de" is not a country code; write "DE"`},
			of:   country, want: "DE",
		},
		{
			name: "an unknown country is no country",
			text: plainMirror + "geolocation:\n  country: Atlantis\n",
			said: []string{`E :5: geolocation.country: "Atlantis" is not a country code; write two capitals, such as DE`},
			of:   country, want: "",
		},
		{
			name: "NO with quotes is Norway",
			text: plainMirror + "geolocation:\n  country: 'NO'\n", of: country, want: "NO",
		},
		{
			name: "NO without quotes is Norway",
			text: plainMirror + "geolocation:\n  country: NO\n",
			said: []string{`W :5: geolocation.country: other software reads NO as false; write "NO" with the quotes`},
			of:   country, want: "NO",
		},
		{
			name: "NO that other software rewrote is Norway",
			text: plainMirror + "geolocation:\n  country: false\n",
			said: []string{`W :5: geolocation.country: "false" is read as Norway; write "NO"`},
			of:   country, want: "NO",
		},
		{
			name: "a continent's name means its code",
			text: plainMirror + "geolocation:\n  continent: europe\n",
			said: []string{`W :5: geolocation.continent: "europe" is read as "EU"; write EU`},
			of:   func(m *Mirror) any { return m.Location.Continent }, want: "EU",
		},
		{
			name: "coordinates are degrees",
			text: plainMirror + "geolocation:\n  latitude: -48.21\n  longitude: \"16.37\"\n",
			of:   position, want: "true -48.21 16.37",
		},
		{
			name: "a coordinate out of range makes no place",
			text: plainMirror + "geolocation:\n  latitude: 91\n  longitude: 16.37\n",
			said: []string{`E :5: geolocation.latitude: "91" is not a latitude; write degrees from -90 to 90, such as 48.21`},
			of:   position, want: "false 0 0",
		},
		{
			name: "not a number is no coordinate",
			text: plainMirror + "geolocation:\n  latitude: 1\n  longitude: NaN\n",
			said: []string{`E :6: geolocation.longitude: "NaN" is not a longitude; write degrees from -180 to 180, such as 48.21`},
			of:   position, want: "false 0 0",
		},
		{
			name: "one coordinate makes no place",
			text: plainMirror + "geolocation:\n  latitude: 48.2\n",
			said: []string{"E :5: geolocation.latitude: a latitude alone is no place; write longitude too"},
			of:   position, want: "false 0 0",
		},

		// Who is sent there.
		{name: "an ASN is a number", text: plainMirror + "asn: 64496\n", of: asn, want: "[64496]"},
		{name: "or a list of numbers", text: plainMirror + "asn: [64496, 64497]\n", of: asn, want: "[64496 64497]"},
		{
			name: "AS in front of the number is removed",
			text: plainMirror + "asn: AS1\n",
			said: []string{`W :4: asn: "AS1" is read as 1; write 1`},
			of:   asn, want: "[1]",
		},
		{
			name: "AS in front of a number of a list is removed",
			text: plainMirror + "asn:\n- as64496\n- AS 64497\n",
			said: []string{`W :5: asn[0]: "as64496" is read as 64496; write 64496`, `W :6: asn[1]: "AS 64497" is read as 64497; write 64497`},
			of:   asn, want: "[64496 64497]",
		},
		{
			name: "numbers in one text are taken apart",
			text: plainMirror + "asn: 64496, 64497\n",
			said: []string{`W :4: asn: "64496, 64497" is read as 64496 and 64497; write 64496 and 64497`},
			of:   asn, want: "[64496 64497]",
		},
		{
			name: "0 is unknown, and never matches",
			text: plainMirror + "asn: [0, 64496, 64496, x]\n",
			said: []string{
				`E :4: asn[0]: "0" is not the number of an autonomous system; write a number such as 64496`,
				"W :4: asn[2]: 64496 is listed twice; remove one",
				`E :4: asn[3]: "x" is not the number of an autonomous system; write a number such as 64496`,
			},
			of: asn, want: "[64496]",
		},
		{
			name: "subnets keep their order",
			text: plainMirror + "subnets:\n  - 198.51.100.0/24\n  - 192.0.2.0/25\n  - 2001:0db8:0000::/44\n",
			of:   subnets, want: "[198.51.100.0/24 192.0.2.0/25 2001:db8::/44]",
		},
		{
			name: "host bits are masked",
			text: plainMirror + "subnets: [192.0.2.77/24]\n",
			said: []string{`W :4: subnets[0]: "192.0.2.77/24" has bits set beyond its length of 24; write 192.0.2.0/24`},
			of:   subnets, want: "[192.0.2.0/24]",
		},
		{
			name: "an address alone is one address",
			text: plainMirror + "subnets: 192.0.2.77\n",
			said: []string{`W :4: subnets: "192.0.2.77" has no length; write 192.0.2.77/32`},
			of:   subnets, want: "[192.0.2.77/32]",
		},
		{
			name: "an IPv4 network written as IPv6 is IPv4",
			text: plainMirror + "subnets: [\"::ffff:192.0.2.0/120\"]\n",
			said: []string{`W :4: subnets[0]: "::ffff:192.0.2.0/120" is an IPv4 network written as IPv6; write 192.0.2.0/24`},
			of:   subnets, want: "[192.0.2.0/24]",
		},
		{
			name: "one bad subnet does not take the others along",
			text: plainMirror + "subnets: [192.0.2.0-192.0.2.9, 192.0.2.0/33, 0.0.0.0/0, fe80::1%eth0, 192.0.2.0/24, 192.0.2.0/24]\n",
			said: []string{
				`E :4: subnets[0]: "192.0.2.0-192.0.2.9" is not a subnet; write ADDRESS/LENGTH, such as 192.0.2.0/24`,
				`E :4: subnets[1]: "192.0.2.0/33" is not a subnet; write ADDRESS/LENGTH, such as 192.0.2.0/24`,
				`E :4: subnets[2]: "0.0.0.0/0" is the whole Internet; write the networks that are yours`,
				`E :4: subnets[3]: "fe80::1%eth0" is not a subnet; write ADDRESS/LENGTH, such as 192.0.2.0/24`,
				"W :4: subnets[5]: 192.0.2.0/24 is listed twice; remove one",
			},
			of: subnets, want: "[192.0.2.0/24]",
		},
		{
			name: "subnets may be a URL",
			text: plainMirror + "subnets: https://mirror.example.org/subnets.json?v=1\n",
			of:   func(m *Mirror) any { return m.SubnetsURL }, want: "https://mirror.example.org/subnets.json?v=1",
		},
		{
			name: "a URL inside the list of subnets is taken",
			text: plainMirror + "subnets:\n  - https://mirror.example.org/subnets.json\n",
			said: []string{"W :5: subnets[0]: a URL inside a list; write subnets: https://mirror.example.org/subnets.json"},
			of:   func(m *Mirror) any { return m.SubnetsURL }, want: "https://mirror.example.org/subnets.json",
		},
		{
			name: "a URL of subnets is not a file of the server",
			text: plainMirror + "subnets: file:///etc/passwd\n",
			said: []string{`E :4: subnets: "file:///etc/passwd": it is neither http nor https; write the http or https URL of a JSON list`},
			of:   func(m *Mirror) any { return m.SubnetsURL }, want: "",
		},
		{
			name: "all regions in a list", text: plainMirror + "cloud_type: aws\ncloud_regions: [all]\n",
			of: clouds, want: "aws [] true",
		},
		{
			name: "all regions without a list",
			text: plainMirror + "cloud_type: aws\ncloud_regions: all\n",
			said: []string{`W :5: cloud_regions: "all" is not in a list; write [all]`},
			of:   clouds, want: "aws [] true",
		},
		{
			name: "regions by name", text: plainMirror + "cloud_type: gcp\ncloud_regions:\n- us-east1\n- europe-west3\n",
			of: clouds, want: "gcp [us-east1 europe-west3] false",
		},
		{
			name: "a cloud's other name",
			text: plainMirror + "cloud_type: Amazon\ncloud_regions: [eu-west-1]\n",
			said: []string{`W :4: cloud_type: "Amazon" is read as "aws"; write aws`},
			of:   clouds, want: "aws [eu-west-1] false",
		},
		{
			name: "an unknown cloud keeps the mirror from the public",
			text: plainMirror + "cloud_type: nimbus\ncloud_regions: [all]\n",
			said: []string{`E :4: cloud_type: "nimbus" is not a cloud; the mirror is kept from the public; write aws, azure, gcp or oci`},
			of:   private, want: "true",
		},
		{
			name: "a cloud without regions",
			text: plainMirror + "cloud_type: aws\n",
			said: []string{"E :4: cloud_regions: a mirror inside a cloud without regions is listed to nobody there; write cloud_regions: [all], or the regions"},
			of:   clouds, want: "aws [] false",
		},
		{
			name: "regions without a cloud",
			text: plainMirror + "cloud_regions: [all]\n",
			said: []string{"E :4: cloud_regions: regions without a cloud_type mean nothing; write cloud_type: aws, azure, gcp or oci"},
			of:   clouds, want: " [] false",
		},
		{name: "private as Python writes it", text: plainMirror + "private: True\n", of: private, want: "true"},
		{
			name: "private as YAML 1.1 has it",
			text: plainMirror + "private: yes\n",
			said: []string{`W :4: private: "yes" is read as true; write true`},
			of:   private, want: "true",
		},
		{
			name: "private in quotes",
			text: plainMirror + "private: \"false\"\n",
			said: []string{`W :4: private: "false" in quotes is a text; write false without quotes`},
			of:   private, want: "false",
		},
		{
			name: "unreadable privacy keeps the mirror from the public",
			text: plainMirror + "private: partly\n",
			said: []string{`E :4: private: "partly" is neither true nor false; write true or false`},
			of:   private, want: "true",
		},

		// How often, how much, what.
		{name: "every three hours", text: plainMirror + "update_frequency: 3h\n", of: every, want: "3h"},
		{name: "every quarter of an hour", text: plainMirror + "update_frequency: 15m\n", of: every, want: "15m"},
		{name: "every day", text: plainMirror + "update_frequency: 1d\n", of: every, want: "1d"},
		{name: "an hour and a half", text: plainMirror + "update_frequency: 1h30m\n", of: every, want: "90m"},
		{name: "three hours when nothing is said", text: plainMirror, of: every, want: "3h"},
		{
			name: "a duration in words",
			text: plainMirror + "update_frequency: 6 Hours\n",
			said: []string{`W :4: update_frequency: "6 Hours" is read as 6h; write 6h`},
			of:   every, want: "6h",
		},
		{
			name: "a number without a unit",
			text: plainMirror + "update_frequency: 3\n",
			said: []string{`E :4: update_frequency: "3" is not a duration; 3h is taken; write a number with its unit, such as 15m, 3h or 1d`},
			of:   every, want: "3h",
		},
		{
			name: "a duration that overflows",
			text: plainMirror + "update_frequency: 4294967295w4294967295w\n",
			said: []string{`E :4: update_frequency: "4294967295w4294967295w" is not a duration; 3h is taken; write a number with its unit, such as 15m, 3h or 1d`},
			of:   every, want: "3h",
		},
		{
			name: "never",
			text: plainMirror + "update_frequency: 0h\n",
			said: []string{`E :4: update_frequency: "0h" is out of range; 3h is taken; write something from 1m to 30d`},
			of:   every, want: "3h",
		},
		{name: "bandwidth in Mbit/s", text: plainMirror + "bandwidth: 40000\n", of: bandwidth, want: "40000"},
		{name: "bandwidth when nothing is said", text: plainMirror, of: bandwidth, want: "1000"},
		{
			name: "bandwidth with a unit",
			text: plainMirror + "bandwidth: 2.5 Gbit/s\n",
			said: []string{`W :4: bandwidth: "2.5 Gbit/s" is read as 2500 Mbit/s; write 2500`},
			of:   bandwidth, want: "2500",
		},
		{
			name: "bandwidth is never 0",
			text: plainMirror + "bandwidth: 0\n",
			said: []string{`E :4: bandwidth: "0" is not a bandwidth; 1000 is taken; write a whole number of Mbit/s, such as 10000`},
			of:   bandwidth, want: "1000",
		},
		{
			name: "a partial mirror",
			text: plainMirror + "carries:\n  versions: [9, \"10.2\"]\n  arches: x86_64\n  isos: false\n",
			of:   carries, want: "{Versions:[9 10.2] Arches:[x86_64] NoISOs:true Nothing:false}",
		},
		{
			name: "a version that other software would misread",
			text: plainMirror + "carries:\n  versions: [8.10]\n",
			said: []string{`W :5: carries.versions[0]: other software reads 8.10 as a number and drops its last digit; write "8.10" with the quotes`},
			of:   func(m *Mirror) any { return m.Carries.Versions }, want: "[8.10]",
		},
		{
			name: "what remains of a list counts",
			text: plainMirror + "carries:\n  arches: [x86/64, aarch64]\n",
			said: []string{`E :5: carries.arches[0]: "x86/64" is not a name; write one word`},
			of:   carries, want: "{Versions:[] Arches:[aarch64] NoISOs:false Nothing:false}",
		},
		{
			name: "a mirror whose architectures cannot be read is listed for nothing",
			text: plainMirror + "carries:\n  versions: [\"9\"]\n  arches: [x86/64]\n",
			said: []string{
				`E :6: carries.arches[0]: "x86/64" is not a name; write one word`,
				"E :6: carries.arches: nothing can be read here, so the mirror is listed for nothing; write what it has, or remove carries.arches if it has all",
			},
			of: carries, want: "{Versions:[] Arches:[] NoISOs:true Nothing:true}",
		},
		{
			name: "a mirror whose versions are a group of keys is listed for nothing",
			text: plainMirror + "carries:\n  versions: {9: true}\n",
			said: []string{
				"E :5: carries.versions: a group of keys where a list belongs; write one item a line, each behind a dash",
				"E :5: carries.versions: nothing can be read here, so the mirror is listed for nothing; write what it has, or remove carries.versions if it has all",
			},
			of: carries, want: "{Versions:[] Arches:[] NoISOs:true Nothing:true}",
		},
		{
			name: "an empty list is not all",
			text: plainMirror + "carries:\n  versions: []\n  arches:\n  -\n",
			said: []string{
				"E :5: carries.versions: nothing can be read here, so the mirror is listed for nothing; write what it has, or remove carries.versions if it has all",
				"E :7: carries.arches: nothing can be read here, so the mirror is listed for nothing; write what it has, or remove carries.arches if it has all",
			},
			of: carries, want: "{Versions:[] Arches:[] NoISOs:true Nothing:true}",
		},
		{
			name: "a mirror is listed for nothing when carries is no group of keys",
			text: plainMirror + "carries: [x86_64]\n",
			said: []string{
				"E :4: carries: a list is not a group of keys; write one key a line, indented below this one: versions, arches, isos",
				"E :4: carries: nothing can be read here, so the mirror is listed for nothing; write what it has, or remove carries if it has all",
			},
			of: carries, want: "{Versions:[] Arches:[] NoISOs:true Nothing:true}",
		},
		{
			name: "a mirror is listed for nothing when no key of carries is known",
			text: plainMirror + "carries:\n  archs: [x86_64]\n",
			said: []string{
				`W :5: carries.archs: unknown key "archs" is not read; write arches`,
				"E :5: carries: nothing can be read here, so the mirror is listed for nothing; write what it has, or remove carries if it has all",
			},
			of: carries, want: "{Versions:[] Arches:[] NoISOs:true Nothing:true}",
		},
		{
			name: "keys of carries without a value are absent",
			text: plainMirror + "carries:\n  versions:\n  arches:\n",
			of:   carries, want: "{Versions:[] Arches:[] NoISOs:false Nothing:false}",
		},
		{
			name: "images that may not be there are not",
			text: plainMirror + "carries:\n  isos: some\n",
			said: []string{`E :5: carries.isos: "some" is neither true nor false; write true or false`},
			of:   carries, want: "{Versions:[] Arches:[] NoISOs:true Nothing:false}",
		},
		{
			name: "a group where one value belongs",
			text: plainMirror + "sponsor:\n  name: Example\n",
			said: []string{"E :5: sponsor: a group of keys where one value belongs; write a single value"},
			of:   func(m *Mirror) any { return m.Sponsor }, want: "",
		},
		{
			name: "a list of one where one value belongs",
			text: plainMirror + "sponsor: [Example]\n",
			said: []string{"W :4: sponsor: a list of one value; write it behind the colon, without a dash or brackets"},
			of:   func(m *Mirror) any { return m.Sponsor }, want: "Example",
		},
		{
			name: "a list inside a list",
			text: plainMirror + "subnets:\n  - [192.0.2.0/24]\n  - 198.51.100.0/24\n",
			said: []string{"E :5: subnets[0]: a list inside a list; write a single value behind the dash"},
			of:   subnets, want: "[198.51.100.0/24]",
		},
		{
			name: "a text of several lines becomes one",
			text: plainMirror + "sponsor: |\n  Example\n  University\n",
			of:   func(m *Mirror) any { return m.Sponsor }, want: "Example University",
		},
	}
}

func TestParseMirrorQuirks(t *testing.T) {
	for _, tt := range quirks() {
		t.Run(tt.name, func(t *testing.T) {
			m, problems := ParseMirror("mirrors.d/mirror.example.org.yml", []byte(tt.text))
			compareSaid(t, "problems", said(problems), tt.said)
			switch {
			case tt.of == nil && m != nil:
				t.Errorf("the mirror is usable: %+v", m)
			case tt.of != nil && m == nil:
				t.Errorf("the mirror is not usable")
			case tt.of != nil:
				if got := fmt.Sprint(tt.of(m)); got != tt.want {
					t.Errorf("read %q, want %q", got, tt.want)
				}
				if m.File != "mirror.example.org.yml" {
					t.Errorf("File = %q, want the base name", m.File)
				}
			}
		})
	}
}

func TestParseMirrorIsBounded(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%[3]s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	tests := []struct{ name, text, want string }{
		{"aliases that multiply", bomb, "aliases counted as often as they are used"},
		{"an alias of itself", "a: &a\n  b: *a\n", "nested more than"},
		{"deep nesting", "a: " + strings.Repeat("[", 500) + strings.Repeat("]", 500), "nested more than 40 deep"},
		{"a large file", "a: " + strings.Repeat("x", 1<<20), "larger than 1024 KiB"},
		{"a list as a key", "[a]: b\n", "a list or a group of keys stands where a key belongs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, problems := ParseMirror("m.yml", []byte(tt.text))
			if m != nil || len(problems) == 0 || !strings.Contains(problems[len(problems)-1].Text, tt.want) {
				t.Errorf("got mirror %v and %q, want a refusal with %q", m, said(problems), tt.want)
			}
		})
	}
	t.Run("an error behind many warnings is not lost", func(t *testing.T) {
		var text strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&text, "unknown%d: x\n", i)
		}
		m, problems := ParseMirror("m.yml", []byte(text.String()))
		if m != nil || !slices.ContainsFunc(problems, func(p Problem) bool { return p.Error }) {
			t.Errorf("mirror %v, and no error in %d problems", m, len(problems))
		}
	})
	for _, tt := range []struct {
		key, format string
		items       func(*Mirror) int
	}{
		{"carries", "{versions: [%s]}", func(m *Mirror) int { return len(m.Carries.Versions) }},
		{"asn", "[%s]", func(m *Mirror) int { return len(m.ASN) }},
		{"asn", "%q", func(m *Mirror) int { return len(m.ASN) }},
		{"cloud_regions", "[%s]\ncloud_type: aws", func(m *Mirror) int { return len(m.CloudRegions) }},
		{"cloud_regions", "%q\ncloud_type: aws", func(m *Mirror) int { return len(m.CloudRegions) }},
	} {
		t.Run("a long list of "+tt.key+" "+tt.format, func(t *testing.T) {
			var list []string
			for i := range maxItems + 1 {
				list = append(list, fmt.Sprint(i+1))
			}
			text := func(n int) []byte {
				return []byte(plainMirror + tt.key + ": " + fmt.Sprintf(tt.format, strings.Join(list[:n], ", ")) + "\n")
			}
			isError := func(p Problem) bool { return p.Error }
			if m, problems := ParseMirror("m.yml", text(maxItems)); m == nil || tt.items(m) != maxItems || slices.ContainsFunc(problems, isError) {
				t.Errorf("%d items: %q, want all of them", maxItems, said(problems))
			}
			m, problems := ParseMirror("m.yml", text(maxItems+1))
			if m == nil || tt.items(m) != maxItems || !slices.ContainsFunc(problems, func(p Problem) bool {
				return p.Error && p.Text == "a list of more than 1000; the rest is not read"
			}) {
				t.Errorf("%d items: %q, want the first %d and an error", maxItems+1, said(problems), maxItems)
			}
		})
	}
}

// What a file holds must not reach the terminal of a reviewer as it is, nor make
// a line that looks like another problem.
func TestProblemsArePrintable(t *testing.T) {
	const evil = `"\e[2J\u202e\nmirrors.d/other.yml:1: fine"`
	for key, text := range map[string]string{
		"cloud_regions": plainMirror + "cloud_type: aws\ncloud_regions: " + evil + "\n",
		"subnets":       plainMirror + "subnets: [" + evil + "]\n",
		"carries":       plainMirror + "carries: {versions: " + evil + "}\n",
		"a key":         plainMirror + evil + ": x\n",
		"a number":      plainMirror + "sponsor: 0." + strings.Repeat("1", 5000) + "\n",
	} {
		const file = "m\x1b[2J\n.yaml"
		_, problems := LintMirror(file, []byte(text))
		problems = append(problems, nameProblems(file)...)
		if len(problems) < 2 {
			t.Errorf("%s: nothing is said of it", key)
		}
		for _, p := range problems {
			line := p.String()
			if len(line) > 1000 || strings.ContainsFunc(line, func(c rune) bool { return !unicode.IsPrint(c) }) {
				t.Errorf("%s: %.1000q", key, line)
			}
		}
	}
}

func TestProblemString(t *testing.T) {
	tests := []struct {
		p    Problem
		want string
	}{
		{Problem{File: "mirrors.d/mirror.example.org.yml", Line: 7, Path: "geolocation.country", Text: `"UK" is not a country code`, Remedy: `write "GB"`},
			`mirrors.d/mirror.example.org.yml:7: geolocation.country: "UK" is not a country code; write "GB"`},
		{Problem{File: "a.yml", Text: "the file is empty", Remedy: "fill it"}, "a.yml: the file is empty; fill it"},
		{Problem{File: "a.yml", Line: 1, Text: "odd"}, "a.yml:1: odd"},
	}
	for _, tt := range tests {
		if got := tt.p.String(); got != tt.want {
			t.Errorf("String() = %q, want %q", got, tt.want)
		}
	}
}
