package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meridian/cmd/internal/daemon"
	"meridian/mirrorlist/stats"
)

// What has reached the disk outlives a kill, and a stop loses fewer than ten of the
// lists that clients got.
func TestStatisticsOutliveTheProcess(t *testing.T) {
	t.Parallel() // it waits for half a minute
	dir := filepath.Join(t.TempDir(), "stats")
	store, err := stats.Open("dir:" + dir)
	if err != nil {
		t.Fatal(err)
	}
	total := func() uint64 {
		t.Helper()
		today := stats.DayOf(time.Now())
		res, err := stats.NewReader(store, time.Now).Query(t.Context(), stats.Query{Table: stats.Lists, From: today - 1, To: today})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if len(res.Unread) > 0 {
			t.Fatalf("a document is damaged: %q", res.Unread)
		}
		return res.Total.Count
	}
	settings := "node: node-1\nstats: dir:" + dir + "\n"
	ask := func(d *daemonChild, n int) {
		t.Helper()
		for range n {
			if _, code := d.get(d.url + "/mirrorlist/9/baseos"); code != http.StatusOK {
				t.Fatalf("status %d", code)
			}
		}
	}

	d := startDaemon(t, 3, settings)
	ask(d, 30)
	eventually(t, "that 30 lists are written", func() bool { return total() == 30 })
	ask(d, 40)
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-d.Done()

	d = startDaemon(t, 3, settings)
	ask(d, 12)
	if err := d.Stop(5 * time.Minute); err != nil {
		t.Fatal(err)
	}
	before := total()
	if before < 30+10 || before > 30+40+10 {
		t.Fatalf("of 30 lists that were written, 40 before the kill and 12 after it there are %d", before)
	}

	// What the command tells is whole tens in each format.
	config := filepath.Join(t.TempDir(), "mirrorlist.yml")
	if err := os.WriteFile(config, []byte("network: network.yml\nstats: dir:"+dir+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for format, count := range map[string]string{"csv": `(?m),(\d+)$`, "json": `"count": (\d+)`, "text": `(?m) (\d+) +[0-9.]+ %$`} {
		var out bytes.Buffer
		if err := run(t.Context(), daemon.Env{Args: []string{"stats", "-config", config, "-by", "country,version", "-format", format}, Stdout: &out, Stderr: io.Discard}); err != nil {
			t.Fatal(err)
		}
		counts := regexp.MustCompile(count).FindAllStringSubmatch(out.String(), -1)
		for _, m := range counts {
			if !strings.HasSuffix(m[1], "0") {
				t.Errorf("%s has %s:\n%s", format, m[1], &out)
			}
		}
		if len(counts) == 0 {
			t.Errorf("%s has no count:\n%s", format, &out)
		}
	}

	// A stop in the middle of requests.
	d = startDaemon(t, 3, settings)
	var asked, got atomic.Uint64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				asked.Add(1)
				resp, err := http.Get(d.url + "/mirrorlist/9/baseos")
				if err != nil {
					return // it has stopped
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err == nil && resp.StatusCode == http.StatusOK {
					got.Add(1)
				}
			}
		})
	}
	eventually(t, "that requests are under way", func() bool { return got.Load() > 500 })
	if err := d.Stop(5 * time.Minute); err != nil {
		t.Fatal(err)
	}
	clients.Wait()
	if counted := total() - before; counted+stats.Least <= got.Load() || counted > asked.Load() {
		t.Errorf("%d lists were counted of %d that were asked for and %d that came", counted, asked.Load(), got.Load())
	}
}
