package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	metadata "meridian/builder/repodata"
	"meridian/internal/testworld"
)

var publication = section{
	name:  "publish",
	about: "a publication beside one raw rsync of the same change, verifying a tree beside hashing",
	run:   runPublish,
}

// The tree has a release's worth of files, and the change is that of a day.
const (
	publishOld    = 5_000 // packages that stay
	publishOldLen = 8 << 10
	publishNew    = 200 // packages that come, and those of the round before go
	publishNewLen = 2 << 20
	publishRounds = 7
)

func runPublish(ctx context.Context, b *bench) error {
	if !b.has("rsync", "a publication") {
		return nil
	}
	program, err := b.build(ctx, "cmd/syncer", false)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "publish")
	src := filepath.Join(dir, "src")
	tree, err := newPublishTree(src)
	if err != nil {
		return err
	}
	raw, err := newModule(dir, "raw")
	if err != nil {
		return err
	}
	ours, err := newModule(dir, "ours")
	if err != nil {
		return err
	}
	// With the settings that docs/PUBLISHING.md asks for, for both.
	addr, daemon, err := testworld.StartRsync(ctx, dir, fmt.Sprintf("[raw]\npath = %s\nread only = no\n[ours]\npath = %s\nread only = no\n", raw, ours))
	if err != nil {
		return err
	}
	defer daemon.Stop(10 * time.Second)
	url := "rsync://" + addr + "/"

	costs := make(map[string][]cost)
	for round := range publishRounds + 1 {
		if err := tree.next(); err != nil {
			return err
		}
		for _, kind := range []string{"wire", "local"} {
			theirs, mine := filepath.Join(raw, kind)+"/", filepath.Join(ours, kind)
			// Not measured: room for this round, on both sides.
			if err := dropNew(theirs); err != nil {
				return err
			}
			if kind == "wire" {
				theirs, mine = url+"raw/wire/", url+"ours/wire"
			}
			var a, b cost
			var err error
			turns := []func(){
				func() { a, err = rawRsync(ctx, src, theirs) },
				func() { b, err = publishOnce(ctx, program, src, mine) },
			}
			for i := range turns { // who is first finds the source warm, or cold
				if turns[(i+round)%2](); err != nil {
					return err
				}
			}
			if _, err := output(exec.CommandContext(ctx, program, "publish", "-grace", "1ns", src, mine)); err != nil {
				return err
			}
			if round > 0 { // after the whole tree
				costs["raw "+kind], costs["our "+kind] = append(costs["raw "+kind], a), append(costs["our "+kind], b)
			}
		}
	}
	of := func(name string, what func(cost) float64) float64 {
		var list []float64
		for _, c := range costs[name] {
			list = append(list, what(c))
		}
		return median(list)
	}
	// Of each round, because others use this machine too.
	ratio := func(kind string, what func(cost) float64) float64 {
		var list []float64
		for i, c := range costs["our "+kind] {
			list = append(list, what(c)/what(costs["raw "+kind][i]))
		}
		return median(list)
	}
	cpu := func(c cost) float64 { return c.cpu.Seconds() }
	wall := func(c cost) float64 { return c.wall.Seconds() }
	sent := func(c cost) float64 { return c.bytes }
	what := fmt.Sprintf("%d new packages of %d MB among %d", publishNew, publishNewLen>>20, publishOld)
	for _, k := range []struct{ kind, to string }{{"local", "a disk"}, {"wire", "a daemon"}} {
		b.note(what+", rsync to "+k.to, value{of("raw "+k.kind, wall), "s elapsed"})
		b.note("the same published", value{of("our "+k.kind, wall), "s elapsed"})
	}
	b.gate("CPU time of a publication to a disk", value{ratio("local", cpu), "× rsync"}, 2)
	b.gate("time elapsed of a publication to a disk", value{ratio("local", wall), "× rsync"}, 2)
	// Asking a daemon nine times costs the same for every change. What it does
	// over there is not counted, neither for rsync nor for a publication.
	b.note("CPU time of a publication to a daemon beyond rsync's", value{of("our wire", cpu) - of("raw wire", cpu), "s"})
	b.gate("time elapsed of a publication to a daemon", value{ratio("wire", wall), "× rsync"}, 2)
	b.gate("bytes of a publication to a daemon, both ways", value{ratio("wire", sent), "× rsync"}, 1.1)
	return runVerifyTree(ctx, b, program, src, filepath.Join(dir, "manifest.gz"))
}

// runVerifyTree compares syncer verify with a loop that does nothing but read the
// files and hash them.
func runVerifyTree(ctx context.Context, b *bench, program, tree, manifest string) error {
	if _, err := output(exec.CommandContext(ctx, program, "manifest", "-o", manifest, tree)); err != nil {
		return err
	}
	var files []string
	err := filepath.WalkDir(tree, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	var ratios []float64
	for range rounds {
		cmd := exec.CommandContext(ctx, program, "verify", "-manifest", manifest, tree)
		oneCPU(cmd)
		ours, err := usedBy(cmd)
		if err != nil {
			return err
		}
		least, err := readAndHash(files)
		if err != nil {
			return err
		}
		ratios = append(ratios, ours.Seconds()/least.Seconds())
	}
	b.gate("CPU time of verifying a tree / reading and hashing in a loop", value{median(ratios), "×"}, 1.4)
	return nil
}

// readAndHash is the least that verifying a tree can cost, but for listing it.
func readAndHash(files []string) (time.Duration, error) {
	before, err := ownCPU()
	if err != nil {
		return 0, err
	}
	buf, h := make([]byte, 256<<10), xxh3.New()
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		h.Reset()
		_, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, buf)
		f.Close()
		if err != nil {
			return 0, err
		}
		h.Sum64()
	}
	after, err := ownCPU()
	return after - before, err
}

// A cost is what one transfer took.
type cost struct {
	bytes     float64 // over the connection, both ways
	cpu, wall time.Duration
}

// timed runs a command and what it starts. Time elapsed depends most on what the
// disk had to do before, so that is written out first.
func timed(ctx context.Context, src string, cmd *exec.Cmd) (string, cost, error) {
	if _, err := output(exec.CommandContext(ctx, "sync", "-f", src)); err != nil {
		return "", cost{}, err
	}
	start := time.Now()
	out, err := output(cmd)
	if err != nil {
		return "", cost{}, err
	}
	return out, cost{wall: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

// rawRsync is what people run. A publication to a directory is on its disk when
// it ends, so this has to get there too.
func rawRsync(ctx context.Context, src, dest string) (cost, error) {
	out, c, err := timed(ctx, src, exec.CommandContext(ctx, "rsync", "-aH", "--stats", "--no-human-readable", src+"/", dest))
	if err != nil {
		return cost{}, err
	}
	if filepath.IsAbs(dest) {
		sync := exec.CommandContext(ctx, "sync", "-f", dest)
		start := time.Now()
		if _, err := output(sync); err != nil {
			return cost{}, err
		}
		c.wall += time.Since(start)
		c.cpu += sync.ProcessState.UserTime() + sync.ProcessState.SystemTime()
	}
	for line := range strings.Lines(out) {
		for _, prefix := range []string{"Total bytes sent: ", "Total bytes received: "} {
			if n, ok := strings.CutPrefix(strings.TrimSpace(line), prefix); ok {
				v, err := strconv.ParseFloat(n, 64)
				if err != nil {
					return cost{}, err
				}
				c.bytes += v
			}
		}
	}
	return c, nil
}

// publishOnce runs the command. It deletes nothing, as the raw rsync does not.
func publishOnce(ctx context.Context, program, src, dest string) (cost, error) {
	out, c, err := timed(ctx, src, exec.CommandContext(ctx, program, "publish", "-json", src, dest))
	if err != nil {
		return cost{}, err
	}
	var report struct {
		Destinations []struct {
			Sent  float64 `json:"sent"`
			Added int     `json:"added"`
		} `json:"destinations"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return cost{}, err
	}
	if len(report.Destinations) != 1 || report.Destinations[0].Added < publishNew {
		return cost{}, fmt.Errorf("published less than the change: %s", out)
	}
	c.bytes = report.Destinations[0].Sent
	return c, nil
}

// newModule makes two empty destinations.
func newModule(dir, name string) (string, error) {
	for _, sub := range []string{"wire", "local"} {
		if err := os.MkdirAll(filepath.Join(dir, name, sub), 0o755); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, name), nil
}

// A publishTree is one repository of which a part is new in each generation.
type publishTree struct {
	dir        string
	generation int
	old        map[string]int64 // packages that stay: location and size
	random     *rand.ChaCha8
}

func newPublishTree(dir string) (*publishTree, error) {
	t := &publishTree{dir: dir, old: make(map[string]int64), random: rand.NewChaCha8([32]byte{1})}
	if err := os.MkdirAll(filepath.Join(dir, "Packages"), 0o755); err != nil {
		return nil, err
	}
	for i := range publishOld {
		name := fmt.Sprintf("Packages/old-%d-1.x86_64.rpm", i)
		if err := t.pkg(name, publishOldLen); err != nil {
			return nil, err
		}
		t.old[name] = publishOldLen
	}
	return t, nil
}

// pkg writes what rsync cannot compress and syncer takes for a package.
func (t *publishTree) pkg(name string, size int) error {
	data := make([]byte, size)
	t.random.Read(data)
	return os.WriteFile(filepath.Join(t.dir, name), data, 0o644)
}

// next makes the next generation in the place of the one before.
func (t *publishTree) next() error {
	t.generation++
	if err := dropNew(t.dir); err != nil {
		return err
	}
	packages := make(map[string]int64)
	for name, size := range t.old {
		packages[name] = size
	}
	for i := range publishNew {
		name := fmt.Sprintf("Packages/new-%d-%d.x86_64.rpm", i, t.generation)
		if err := t.pkg(name, publishNewLen); err != nil {
			return err
		}
		packages[name] = publishNewLen
	}
	return t.describe(packages)
}

// dropNew removes the packages that came with a generation.
func dropNew(dir string) error {
	stale, err := filepath.Glob(filepath.Join(dir, "Packages/new-*"))
	if err != nil {
		return err
	}
	for _, file := range stale {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

func (t *publishTree) describe(packages map[string]int64) error {
	var text, zipped bytes.Buffer
	text.WriteString("<metadata>\n")
	for name, size := range packages {
		fmt.Fprintf(&text, "<package type=\"rpm\"><size package=\"%d\"/><location href=\"%s\"/></package>\n", size, name)
	}
	text.WriteString("</metadata>\n")
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(text.Bytes()); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	dir := filepath.Join(t.dir, metadata.Dir)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	hash := func(b []byte) metadata.Checksum {
		s := sha256.Sum256(b)
		return metadata.Checksum{Type: "sha256", Value: hex.EncodeToString(s[:])}
	}
	data := metadata.Data{
		Type: "primary", Checksum: hash(zipped.Bytes()), Open: hash(text.Bytes()),
		Timestamp: int64(t.generation), Size: int64(zipped.Len()), OpenSize: int64(text.Len()),
	}
	data.Location = metadata.Dir + "/" + data.Checksum.Value + "-primary.xml.gz"
	if err := os.WriteFile(filepath.Join(t.dir, data.Location), zipped.Bytes(), 0o644); err != nil {
		return err
	}
	md := &metadata.Repomd{Revision: strconv.Itoa(t.generation), Data: []metadata.Data{data}}
	return os.WriteFile(filepath.Join(dir, metadata.Name), md.Marshal(), 0o644)
}
