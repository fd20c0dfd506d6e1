package mirrorlist

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func ranges(list ...string) []cloudRange {
	var out []cloudRange
	for _, s := range list {
		p, region, _ := strings.Cut(s, " ")
		out = append(out, cloudRange{netip.MustParsePrefix(p), region})
	}
	return out
}

var cloudDocuments = []struct {
	name     string
	provider string
	data     string
	want     []cloudRange
	err      string
}{
	{
		name:     "aws lists IPv4 and IPv6 apart, and each service again",
		provider: "aws",
		data: `{"syncToken": "1", "createDate": "2026-01-01-00-00-00",
			"prefixes": [
				{"ip_prefix": "52.94.76.0/22", "region": "us-west-2", "service": "AMAZON", "network_border_group": "us-west-2"},
				{"ip_prefix": "52.94.76.0/22", "region": "us-west-2", "service": "EC2"},
				{"ip_prefix": "3.4.12.4/32", "region": "GLOBAL"}],
			"ipv6_prefixes": [{"ipv6_prefix": "2600:1f14::/35", "region": "us-west-2"}]}`,
		want: ranges("3.4.12.4/32 global", "52.94.76.0/22 us-west-2", "2600:1f14::/35 us-west-2"),
	},
	{
		name:     "azure keeps the union over all regions beside the regions",
		provider: "azure",
		data: `{"changeNumber": 1, "cloud": "Public", "values": [
			{"name": "AzureCloud.westus2", "id": "AzureCloud.westus2", "properties": {"region": "westus2", "addressPrefixes": ["13.66.128.0/17", "2603:1030:c00::/48"]}},
			{"name": "AzureCloud", "properties": {"region": "", "addressPrefixes": ["13.66.128.0/17", "20.33.0.0/16"]}}]}`,
		want: ranges("13.66.128.0/17 ", "13.66.128.0/17 westus2", "20.33.0.0/16 ", "2603:1030:c00::/48 westus2"),
	},
	{
		name:     "gcp has one family per entry",
		provider: "gcp",
		data: `{"syncToken": "1", "prefixes": [
			{"ipv4Prefix": "34.1.208.0/20", "service": "Google Cloud", "scope": "africa-south1"},
			{"ipv6Prefix": "2600:1900:8000::/44", "service": "Google Cloud", "scope": "africa-south1"}]}`,
		want: ranges("34.1.208.0/20 africa-south1", "2600:1900:8000::/44 africa-south1"),
	},
	{
		name:     "oci nests the prefixes in regions",
		provider: "oci",
		data: `{"last_updated_timestamp": "2026-01-01T00:00:00", "regions": [
			{"region": "us-phoenix-1", "cidrs": [{"cidr": "129.146.0.0/21", "tags": ["OCI"]}, {"cidr": "129.146.8.0/22", "tags": []}]},
			{"region": "eu-frankfurt-1", "cidrs": [{"cidr": "130.61.0.0/16"}]}]}`,
		want: ranges("129.146.0.0/21 us-phoenix-1", "129.146.8.0/22 us-phoenix-1", "130.61.0.0/16 eu-frankfurt-1"),
	},
	{
		name:     "one prefix in two regions is in both",
		provider: "gcp",
		data:     `{"prefixes": [{"ipv4Prefix": "34.1.0.0/20", "scope": "b"}, {"ipv4Prefix": "34.1.0.0/20", "scope": "a"}]}`,
		want:     ranges("34.1.0.0/20 a", "34.1.0.0/20 b"),
	},
	{
		name:     "host bits are cleared, and what is then the same counts once",
		provider: "gcp",
		data:     `{"prefixes": [{"ipv4Prefix": "34.1.0.9/24", "scope": "a"}, {"ipv4Prefix": "34.1.0.0/24", "scope": "A"}]}`,
		want:     ranges("34.1.0.0/24 a"),
	},
	{
		name:     "an entry of a kind from the future is passed over",
		provider: "gcp",
		data:     `{"prefixes": [{"ipv8Prefix": "x", "scope": "a"}, {"ipv4Prefix": "34.1.0.0/24", "scope": "a"}]}`,
		want:     ranges("34.1.0.0/24 a"),
	},
	{
		name:     "a byte order mark is no content",
		provider: "gcp",
		data:     "\ufeff" + `{"prefixes": [{"ipv4Prefix": "34.1.0.0/24", "scope": "a"}]}`,
		want:     ranges("34.1.0.0/24 a"),
	},

	{name: "an unknown provider", provider: "Aws", data: `{}`, err: `cloud provider "Aws"; write aws, azure, gcp or oci`},
	{name: "nothing at all", provider: "aws", data: ``, err: "ranges of aws: the document ends early"},
	{name: "a page instead of a document", provider: "aws", data: `<!DOCTYPE html>`, err: "invalid character '<'"},
	{name: "no list", provider: "aws", data: `{}`, err: "ranges of aws: the document holds no prefix"},
	{name: "an empty list", provider: "oci", data: `{"regions": []}`, err: "holds no prefix"},
	{name: "the document of another provider", provider: "azure", data: `{"prefixes": [{"ip_prefix": "52.94.76.0/22", "region": "x"}]}`, err: "holds no prefix"},
	{name: "a list at the top", provider: "aws", data: `["1.2.3.0/24"]`, err: "[ where { should be"},
	{name: "no list where one belongs", provider: "aws", data: `{"prefixes": {}}`, err: "prefixes: { where [ should be"},
	{name: "null where a list belongs", provider: "aws", data: `{"prefixes": null}`, err: "prefixes: <nil> where [ should be"},
	{name: "a prefix of a wrong type", provider: "aws", data: `{"prefixes": [{}, {"ip_prefix": 7}]}`, err: "prefixes[1]: a JSON number does not belong here"},
	{name: "a prefix that is none", provider: "aws", data: `{"prefixes": [{}, {"ip_prefix": "1.2.3/24"}]}`, err: `prefixes[1]: "1.2.3/24" is neither a prefix nor an address`},
	{name: "all of the Internet", provider: "aws", data: `{"prefixes": [{"ip_prefix": "0.0.0.0/0"}]}`, err: "prefixes[0]: prefix 0.0.0.0/0 is too wide; write /8 or longer"},
	{name: "half of IPv6", provider: "aws", data: `{"ipv6_prefixes": [{"ipv6_prefix": "8000::/1"}]}`, err: "ipv6_prefixes[0]: prefix 8000::/1 is too wide; write /16 or longer"},
	{name: "all of IPv4 in the dress of IPv6", provider: "aws", data: `{"ipv6_prefixes": [{"ipv6_prefix": "::ffff:0:0/96"}]}`, err: "too wide; write /8"},
	{name: "cut inside the list", provider: "oci", data: `{"regions": [{"region": "a", "cidrs": [{"cidr": "130.61.0.0/16"}]}`, err: "regions: the document ends early"},
	{name: "cut inside an entry", provider: "oci", data: `{"regions": [{"region": "a", "cidrs": [{"cid`, err: "regions[0]: the document ends early"},
	{name: "cut after the list", provider: "oci", data: `{"regions": [{"region": "a", "cidrs": [{"cidr": "130.61.0.0/16"}]}]`, err: "the document ends early"},
	{name: "two documents", provider: "gcp", data: `{"prefixes": [{"ipv4Prefix": "34.1.0.0/24"}]} {}`, err: "something follows the end"},
	{name: "deeply nested", provider: "gcp", data: `{"x": ` + strings.Repeat("[", 10_001), err: "exceeded max depth"},
}

// wantError fails t unless err contains want, or is nil where want is "".
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("unexpected error: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Fatalf("error %v, want one with %q", err, want)
	}
}

func TestParseCloud(t *testing.T) {
	for _, tt := range cloudDocuments {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseCloud(tt.provider, []byte(tt.data))
			wantError(t, err, tt.err)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestParseCloudOfTheRecordedWorld(t *testing.T) {
	dir := filepath.Join("..", "..", "shared", "testdata", "decisions", "cloud")
	for provider, want := range map[string]struct {
		ranges, regions int
	}{
		// Distinct pairs of prefix and region, counted without this parser.
		"aws":   {9955, 19},
		"azure": {2372, 4},
		"gcp":   {753, 9},
		"oci":   {594, 2},
	} {
		t.Run(provider, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, provider+".json"))
			if err != nil {
				t.Skipf("the recorded world is not here: %v", err)
			}
			got, err := parseCloud(provider, data)
			if err != nil {
				t.Fatal(err)
			}
			regions := map[string]bool{}
			for _, r := range got {
				regions[r.Region] = true
			}
			if len(got) != want.ranges || len(regions) != want.regions {
				t.Errorf("%d ranges in %d regions, want %d in %d", len(got), len(regions), want.ranges, want.regions)
			}
		})
	}
}

func FuzzClouds(f *testing.F) {
	for _, tt := range cloudDocuments {
		f.Add(tt.provider, []byte(tt.data))
	}
	f.Fuzz(func(t *testing.T, provider string, data []byte) {
		got, err := parseCloud(provider, data)
		if err != nil {
			if got != nil {
				t.Errorf("%d ranges beside the error %v", len(got), err)
			}
			return
		}
		if len(got) == 0 {
			t.Fatal("an empty result is no error")
		}
		for i, r := range got {
			if r.Prefix != r.Prefix.Masked() || r.Prefix.Addr().Is4In6() && r.Prefix.Bits() >= 96 {
				t.Errorf("%s is not in its plain form", r.Prefix)
			}
			if back, err := parsePrefix(r.Prefix.String()); err != nil || back != r.Prefix {
				t.Errorf("%s prints as what is refused: %v", r.Prefix, err)
			}
			if i > 0 {
				last := got[i-1]
				if compareRanges(last, r) >= 0 {
					t.Errorf("%v stands before %v", last, r)
				}
			}
		}
	})
}
