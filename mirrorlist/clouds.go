package mirrorlist

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// A cloudRange is one prefix of a cloud provider. Region is in lower case, and
// "" where the provider does not say which region the prefix is in: such a range
// counts for mirrors of all regions only.
type cloudRange struct {
	Prefix netip.Prefix
	Region string
}

// parseCloud reads the published ranges of a provider ("aws", "azure", "gcp",
// "oci"). The result is masked, ordered by prefix, holds nothing twice, and is
// never empty: a document without ranges is an error, and so is one with a
// prefix that cannot be read or is implausibly wide. Entries without a prefix
// are passed over, for providers add new kinds.
func parseCloud(provider string, data []byte) ([]cloudRange, error) {
	c := cloudRanges{regions: make(map[string]string)}
	var lists map[string]func(*json.Decoder) error
	switch provider {
	case "aws":
		lists = c.aws()
	case "azure":
		lists = c.azure()
	case "gcp":
		lists = c.gcp()
	case "oci":
		lists = c.oci()
	default:
		return nil, fmt.Errorf("cloud provider %q; write aws, azure, gcp or oci", provider)
	}
	if err := readLists(data, lists); err != nil {
		return nil, fmt.Errorf("ranges of %s: %w", provider, err)
	}
	if len(c.ranges) == 0 {
		return nil, fmt.Errorf("ranges of %s: the document holds no prefix", provider)
	}
	slices.SortFunc(c.ranges, compareRanges)
	return slices.Clip(slices.Compact(c.ranges)), nil
}

func compareRanges(a, b cloudRange) int {
	return cmp.Or(a.Prefix.Compare(b.Prefix), strings.Compare(a.Region, b.Region))
}

// cloudRanges collects the ranges of one document.
type cloudRanges struct {
	ranges  []cloudRange
	regions map[string]string // as the document writes it → in lower case
}

func (c *cloudRanges) add(region string, prefixes ...jsonPrefix) {
	lower, ok := c.regions[region]
	if !ok {
		lower = strings.ToLower(region)
		c.regions[region] = lower
	}
	for _, p := range prefixes {
		if p.IsValid() {
			c.ranges = append(c.ranges, cloudRange{p.Prefix, lower})
		}
	}
}

func (c *cloudRanges) aws() map[string]func(*json.Decoder) error {
	type entry struct {
		Region string     `json:"region"`
		V4     jsonPrefix `json:"ip_prefix"`
		V6     jsonPrefix `json:"ipv6_prefix"`
	}
	add := eachElement(func(e entry) { c.add(e.Region, e.V4, e.V6) })
	return map[string]func(*json.Decoder) error{"prefixes": add, "ipv6_prefixes": add}
}

// azure reads service tags. Some have no region: what they list is the union
// over all regions, and more than the tags of the regions list together.
func (c *cloudRanges) azure() map[string]func(*json.Decoder) error {
	type tag struct {
		Properties struct {
			Region   string       `json:"region"`
			Prefixes []jsonPrefix `json:"addressPrefixes"`
		} `json:"properties"`
	}
	return map[string]func(*json.Decoder) error{
		"values": eachElement(func(t tag) { c.add(t.Properties.Region, t.Properties.Prefixes...) }),
	}
}

func (c *cloudRanges) gcp() map[string]func(*json.Decoder) error {
	type entry struct {
		Scope string     `json:"scope"`
		V4    jsonPrefix `json:"ipv4Prefix"`
		V6    jsonPrefix `json:"ipv6Prefix"`
	}
	return map[string]func(*json.Decoder) error{
		"prefixes": eachElement(func(e entry) { c.add(e.Scope, e.V4, e.V6) }),
	}
}

func (c *cloudRanges) oci() map[string]func(*json.Decoder) error {
	type region struct {
		Region string `json:"region"`
		CIDRs  []struct {
			CIDR jsonPrefix `json:"cidr"`
		} `json:"cidrs"`
	}
	return map[string]func(*json.Decoder) error{
		"regions": eachElement(func(r region) {
			for _, e := range r.CIDRs {
				c.add(r.Region, e.CIDR)
			}
		}),
	}
}

// A jsonPrefix is a prefix as JSON documents write it: see parsePrefix.
type jsonPrefix struct{ netip.Prefix }

func (p *jsonPrefix) UnmarshalText(text []byte) (err error) {
	p.Prefix, err = parsePrefix(string(text))
	return err
}

// The widest prefixes that a fetched list may hold: no network is wider, and
// one that claims to be would draw everybody to it.
const (
	widest4 = 8
	widest6 = 16
)

// parsePrefix reads a CIDR prefix or a bare address, which stands for itself
// alone. Host bits are cleared, an IPv4-mapped prefix becomes the IPv4 one.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, addrErr := netip.ParseAddr(s)
		if addrErr != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%.60q is neither a prefix nor an address; write it like 198.51.100.0/24", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	widest := widest4
	if p.Addr().Is6() {
		widest = widest6
	}
	if p.Bits() < widest {
		return netip.Prefix{}, fmt.Errorf("prefix %s is too wide; write /%d or longer", s, widest)
	}
	return p.Masked(), nil
}

// eachElement returns a function that decodes the next JSON value and hands it
// to f.
func eachElement[T any](f func(T)) func(*json.Decoder) error {
	return func(dec *json.Decoder) error {
		var v T
		if err := dec.Decode(&v); err != nil {
			return err
		}
		f(v)
		return nil
	}
}

// readLists reads a document that is one JSON object and calls a function of
// lists for each element of the array under its key; other keys are passed over.
// Elements are decoded one at a time, so that memory grows with what they hold
// and not with how many empty ones a document can name.
func readLists(data []byte, lists map[string]func(*json.Decoder) error) error {
	dec := newDecoder(data)
	if err := expect(dec, '{'); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return jsonError(err)
		}
		read, ok := lists[key.(string)]
		if !ok {
			var skipped json.RawMessage
			if err := dec.Decode(&skipped); err != nil {
				return jsonError(err)
			}
			continue
		}
		if err := readList(dec, key.(string), read); err != nil {
			return err
		}
	}
	if err := expect(dec, '}'); err != nil {
		return err
	}
	return endOfDocument(dec)
}

// readList calls read for each element of the array that comes next. Errors
// begin with its name, and the index of the element.
func readList(dec *json.Decoder, name string, read func(*json.Decoder) error) error {
	if err := expect(dec, '['); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for i := 0; dec.More(); i++ {
		if err := read(dec); err != nil {
			return fmt.Errorf("%s[%d]: %w", name, i, jsonError(err))
		}
	}
	if err := expect(dec, ']'); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// newDecoder reads data without the byte order mark that some editors put
// before it.
func newDecoder(data []byte) *json.Decoder {
	return json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
}

func expect(dec *json.Decoder, want json.Delim) error {
	got, err := dec.Token()
	if err != nil {
		return jsonError(err)
	}
	if got != want {
		return fmt.Errorf("%.60v where %s should be", got, want)
	}
	return nil
}

func endOfDocument(dec *json.Decoder) error {
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the end of the document")
	}
	return nil
}

// jsonError puts an error of the decoder into words for people who know the
// document and not Go.
func jsonError(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the document ends early")
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("a JSON %s does not belong here", wrong.Value)
	}
	return err
}
