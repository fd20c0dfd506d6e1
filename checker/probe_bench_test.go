package checker

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
	"meridian/schema"
)

// benchRepomd is as long as one of a distribution, with as many entries.
func benchRepomd() []byte {
	md := repodata.Repomd{Revision: "1780000000"}
	for i := range 14 {
		md.Data = append(md.Data, repodata.Data{
			Type: fmt.Sprint("type", i), Location: fmt.Sprintf("repodata/%064x-type%d.xml.gz", i, i), Timestamp: 1780000000, Size: 1e6, OpenSize: 1e7,
			Checksum: repodata.Checksum{Type: "sha256", Value: fmt.Sprintf("%064x", i)}, Open: repodata.Checksum{Type: "sha256", Value: fmt.Sprintf("%064x", i+1)},
		})
	}
	return md.Marshal()
}

// benchServerEnv makes this test binary the server of BenchmarkVisit.
const benchServerEnv = "CHECKER_BENCH_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(benchServerEnv) != "" {
		serveBenchmark()
		return
	}
	os.Exit(m.Run())
}

// serveBenchmark answers everything with the same file, as long as it says, until
// its standard input ends. It says where.
func serveBenchmark() {
	body := benchRepomd()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body))) // as of every file
		w.Write(body)
	}))
	defer s.Close()
	fmt.Println(s.URL)
	io.Copy(io.Discard, os.Stdin)
}

// benchServer starts a server in a process of its own: what it costs is not the
// client's.
func benchServer(b *testing.B) (url string) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchServerEnv+"=yes")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	if _, err := fmt.Fscanln(stdout, &url); err != nil {
		b.Fatal(err)
	}
	return url
}

// What a visit costs for each request, and what a client without any limits, that
// reads and hashes the same answers over as many connections, does.
func BenchmarkVisit(b *testing.B) {
	sum := sha256.Sum256(benchRepomd())
	url := benchServer(b)
	const keys = 140
	b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
		p := NewProber(ProbeOptions{AllowPrivateAddresses: true})
		defer p.Close()
		m := &schema.Mirror{Name: "mirror.example.org", Address: schema.Address{HTTP: url + "/"}}
		plan := Plan{Network: probeNetwork(b)}
		for i := range keys {
			plan.Keys = append(plan.Keys, KeyPlan{Key: state.Key{Version: "9.8", Repo: "baseos", Arch: schema.Arch(fmt.Sprint("arch", i))}, Newest: sum})
		}
		b.ReportAllocs()
		cpu := cpuTime()
		for b.Loop() {
			if o := p.Visit(context.Background(), m, plan); len(o.Keys) != keys {
				b.Fatalf("%d keys", len(o.Keys))
			}
		}
		b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N)/keys, "cpu-ns/request")
	})
	b.Run(fmt.Sprintf("bare=%d", keys), func(b *testing.B) {
		c := &http.Client{Transport: &http.Transport{DisableCompression: true, MaxConnsPerHost: 2, MaxIdleConnsPerHost: 2}}
		defer c.CloseIdleConnections()
		b.ReportAllocs()
		cpu := cpuTime()
		for b.Loop() {
			var both sync.WaitGroup
			for worker := range 2 {
				both.Go(func() {
					for i := worker; i < keys; i += 2 {
						res, err := c.Get(fmt.Sprintf("%s/9.8/BaseOS/arch%d/os/repodata/repomd.xml", url, i))
						if err != nil {
							b.Error(err)
							return
						}
						got, err := io.ReadAll(res.Body)
						res.Body.Close()
						if err != nil || sha256.Sum256(got) != sum {
							b.Error("another body", err)
						}
					}
				})
			}
			both.Wait()
		}
		b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N)/keys, "cpu-ns/request")
	})
}

// cpuTime is what this process has used of its processors.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
