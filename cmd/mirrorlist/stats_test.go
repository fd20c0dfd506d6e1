package main

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meridian/mirrorlist/stats"
)

// What has reached the disk outlives a kill, and a stop loses nothing at all:
// every list that a client got is counted.
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
	ask(d, 25)
	eventually(t, "that 25 lists are written", func() bool { return total() == 25 })
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
	if before < 25+12 || before > 25+40+12 {
		t.Fatalf("of 25 lists that were written, 40 before the kill and 12 after it there are %d", before)
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
	if counted := total() - before; counted < got.Load() || counted > asked.Load() {
		t.Errorf("%d lists were counted of %d that were asked for and %d that came", counted, asked.Load(), got.Load())
	}
}
