package geo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"meridian/internal/durable"
)

const (
	// maxFile is the size of the largest .mmdb file that is read: the file is held
	// in memory.
	maxFile = 8 << 30

	// maxNames bounds the names of all cities and states together, in bytes. A
	// full database has a few million.
	maxNames = 256 << 20

	// maxDepth is the length of the longest prefix.
	maxDepth = 128

	// separator is how many zero bytes are between the search tree and the data.
	separator = 16

	// maxAliases: databases have three, 2001::/32, 2002::/16 and ::ffff:0:0/96.
	maxAliases = 16

	// maxTime is how long a database may take. A full one takes seconds; but one
	// can be made of records that overlap, so that to read it takes the square of
	// its size.
	maxTime = 2 * time.Minute
)

// Compile reads an .mmdb file and writes what it says about places and
// autonomous systems as a snapshot to out, for Open. What a record means is
// decided by its fields, in the schemas of MaxMind (City, Country, Enterprise,
// ASN, ISP) and IPinfo (older and newer), not by names.
//
// A database of which any part cannot be read is refused, and out is left as it
// was. What a hostile one can cost is bounded: memory by a multiple of the size
// of the file, time by two minutes.
func Compile(mmdb string, out string) error {
	data, err := readMMDB(mmdb)
	if err != nil {
		return fmt.Errorf("geo: %w", err)
	}
	db, err := compile(data, time.Now().Add(maxTime))
	if err != nil {
		return fmt.Errorf("geo: %s: %w", mmdb, err)
	}
	return db.write(out)
}

// readMMDB reads the file instead of mapping it: people overwrite .mmdb files in
// place.
func readMMDB(path string) ([]byte, error) {
	f, err := durable.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are read", path, st.Size(), int64(maxFile))
	}
	data := make([]byte, st.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return data, nil
}

func compile(data []byte, deadline time.Time) (*DB, error) {
	r, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, err
	}
	m := r.Metadata
	switch {
	case m.BinaryFormatMajorVersion != 2:
		return nil, fmt.Errorf("binary_format_major_version is %d: want 2", m.BinaryFormatMajorVersion)
	case m.IPVersion != 4 && m.IPVersion != 6:
		return nil, fmt.Errorf("ip_version is %d: want 4 or 6", m.IPVersion)
	case m.NodeCount == 0 || m.NodeCount > math.MaxUint32:
		return nil, fmt.Errorf("node_count is %d: want 1 to %d", m.NodeCount, uint32(math.MaxUint32))
	case m.BuildEpoch > maxEpoch:
		return nil, fmt.Errorf("build_epoch is %d: no such time", m.BuildEpoch)
	}
	t := tree{nodes: data, count: uint32(m.NodeCount), recordSize: m.RecordSize}
	if t.left, t.right = t.reader(); t.left == nil {
		return nil, fmt.Errorf("record_size is %d: want 24, 28 or 32", m.RecordSize)
	}
	// OpenBytes has found the marker, and the tree and the separator before it.
	end := uint64(bytes.LastIndex(data, []byte("\xab\xcd\xefMaxMind.com")))
	c := &compiler{
		tree:     t,
		dataSize: end - separator - uint64(m.NodeCount)*uint64(m.RecordSize/4),
		reader:   r,
		builder:  newBuilder(),
		known:    map[uint32]finding{},
		deadline: deadline,
		steps:    2*m.NodeCount + 1<<20,
	}
	if err := c.run(m.IPVersion == 4); err != nil {
		return nil, err
	}
	db := c.builder.done(cleanName(m.DatabaseType), m.BuildTime())
	if db.location == nil && db.asn == nil {
		return nil, fmt.Errorf("no record of this database, of type %q, has a place or an AS number", m.DatabaseType)
	}
	return db, nil
}

// maxEpoch is the end of the year 9999.
const maxEpoch = 253402300799

// compiler walks the search tree of one database.
//
// It reads the tree itself, because the iterator of maxminddb follows every path
// to a branch that several parents share: 130 nodes can be made to have more
// paths than can ever be walked. Here the steps are counted.
type compiler struct {
	tree
	dataSize uint64 // of the section that holds the records, in bytes
	reader   *maxminddb.Reader
	builder  *builder

	known map[uint32]finding // by offset of the record: networks share records

	root4    uint32 // the node of ::/96, which holds IPv4; 0 if there is none
	steps    uint   // how many more nodes may be visited
	deadline time.Time
}

// finding is what a record says.
type finding struct {
	place uint32 // or none
	asn   uint32 // or 0
}

var (
	errShared  = errors.New("the search tree reaches its nodes on too many paths")
	errDeep    = errors.New("the search tree is deeper than an address is long: it has a cycle")
	errPointer = errors.New("the search tree points outside the data")
	errAliases = fmt.Errorf("more than %d networks stand for IPv4", maxAliases)
	errNames   = fmt.Errorf("the names of all places take more than %d bytes", maxNames)
	errTime    = fmt.Errorf("the records take more than %v to read", maxTime)
)

func (c *compiler) run(only4 bool) error {
	if only4 {
		return c.walk4(0, 0, 0)
	}
	// Find the IPv4 tree, to be walked first.
	node, depth := uint32(0), 0
	for depth < 96 && node < c.count {
		node = c.left(node)
		depth++
	}
	if node < c.count {
		c.root4 = node
	}
	if depth == 96 || node != c.count {
		// Either the IPv4 tree, or one record for a network that includes it.
		if err := c.visit4(node, 0, 0); err != nil {
			return err
		}
	}
	return c.walk6(0, addr6{}, 0)
}

// walk4 goes through the node of the IPv4 network first/depth in the order of
// addresses.
func (c *compiler) walk4(node uint32, first uint32, depth int) error {
	if err := c.step(depth, 32); err != nil {
		return err
	}
	if err := c.visit4(c.left(node), first, depth+1); err != nil {
		return err
	}
	return c.visit4(c.right(node), first|1<<(31-depth), depth+1)
}

func (c *compiler) visit4(node uint32, first uint32, depth int) error {
	if node < c.count {
		return c.walk4(node, first, depth)
	}
	f, err := c.leaf(node)
	if err != nil {
		return err
	}
	last := first | uint32(uint64(math.MaxUint32)>>depth)
	c.builder.add(addr6{lo: uint64(first)}, addr6{lo: uint64(last)}, true, f.place, f.asn)
	return nil
}

func (c *compiler) walk6(node uint32, first addr6, depth int) error {
	if err := c.step(depth, maxDepth); err != nil {
		return err
	}
	if err := c.visit6(c.left(node), first, depth+1); err != nil {
		return err
	}
	right := first
	if depth < 64 {
		right.hi |= 1 << (63 - depth)
	} else {
		right.lo |= 1 << (127 - depth)
	}
	return c.visit6(c.right(node), right, depth+1)
}

func (c *compiler) visit6(node uint32, first addr6, depth int) error {
	switch {
	case depth == 96 && first == addr6{}:
		return nil // IPv4, walked before; ::a.b.c.d is another address than a.b.c.d
	case node == c.root4 && node != 0:
		if depth > 96 {
			return errDeep
		}
		if len(c.builder.aliases) == maxAliases {
			return errAliases
		}
		c.builder.aliases = append(c.builder.aliases,
			alias{hi: first.hi, lo: uint32(first.lo >> 32), bits: uint32(depth)})
		return nil
	case node < c.count:
		return c.walk6(node, first, depth)
	}
	f, err := c.leaf(node)
	if err != nil {
		return err
	}
	c.builder.add(first, lastAddr6(first, depth), false, f.place, f.asn)
	return nil
}

func (c *compiler) step(depth, limit int) error {
	if depth >= limit {
		return errDeep
	}
	if c.steps == 0 {
		return errShared
	}
	c.steps--
	return nil
}

// leaf returns what the database says of a network whose value in the tree is
// not a node.
func (c *compiler) leaf(value uint32) (finding, error) {
	if value == c.count {
		return finding{place: none}, nil
	}
	if value-c.count < separator {
		return finding{}, errPointer
	}
	offset := value - c.count - separator
	if uint64(offset) >= c.dataSize {
		return finding{}, errPointer
	}
	if f, ok := c.known[offset]; ok {
		return f, nil
	}
	f, err := c.read(offset)
	if err != nil {
		return finding{}, err
	}
	c.known[offset] = f
	return f, nil
}

func (c *compiler) read(offset uint32) (finding, error) {
	rec := record{deadline: c.deadline}
	if err := c.reader.LookupOffset(uintptr(offset)).Decode(&rec); err != nil {
		return finding{}, fmt.Errorf("record at %d: %w", offset, err)
	}
	f := finding{place: none, asn: rec.asn}
	if rec.hasPlace() {
		f.place = c.builder.place(rec.place())
	}
	if len(c.builder.names) > maxNames {
		return finding{}, errNames
	}
	return f, nil
}

// tree reads the nodes of a search tree. OpenBytes has seen that all of them are
// there.
type tree struct {
	nodes       []byte
	count       uint32
	recordSize  uint
	left, right func(node uint32) uint32
}

// reader returns functions that return the two values of a node: the number of
// another node if it is below count, count for "nothing", or beyond that where
// in the data the record is. They are nil if there is no such record size.
func (t tree) reader() (left, right func(node uint32) uint32) {
	n := t.nodes
	switch t.recordSize {
	case 24:
		value := func(i uint64) uint32 { return uint32(n[i])<<16 | uint32(n[i+1])<<8 | uint32(n[i+2]) }
		return func(node uint32) uint32 { return value(uint64(node) * 6) },
			func(node uint32) uint32 { return value(uint64(node)*6 + 3) }
	case 28:
		value := func(i uint64, high byte) uint32 {
			return uint32(high)<<24 | uint32(n[i])<<16 | uint32(n[i+1])<<8 | uint32(n[i+2])
		}
		return func(node uint32) uint32 { i := uint64(node) * 7; return value(i, n[i+3]>>4) },
			func(node uint32) uint32 { i := uint64(node) * 7; return value(i+4, n[i+3]&0xf) }
	case 32:
		value := func(i uint64) uint32 {
			return uint32(n[i])<<24 | uint32(n[i+1])<<16 | uint32(n[i+2])<<8 | uint32(n[i+3])
		}
		return func(node uint32) uint32 { return value(uint64(node) * 8) },
			func(node uint32) uint32 { return value(uint64(node)*8 + 4) }
	}
	return nil, nil
}
