// Package mirrorlist answers dnf and zypper: which mirrors to use, for this
// repository, from this address, now. It reads what operators promise (schema)
// and what a checker has found out (checker/state), and serves lists, the
// reasons for them, and what is known of the network.
//
// It never contacts a mirror, writes nothing but its cache and counts that are
// nobody's (mirrorlist/stats), and never makes a client wait for anything but the
// answer.
package mirrorlist

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
	"golang.org/x/sync/errgroup"

	"meridian/checker/state"
	"meridian/mirrorlist/stats"
)

// Config is the settings file of a mirrorlist server. The zero value of every
// field but Network works.
type Config struct {
	// Listen is the address to serve on. Default 127.0.0.1:8080.
	Listen string `yaml:"listen"`

	// AdminListen takes /metrics, /readyz and /-/reload to an address of their
	// own. Default none: they are on Listen, and a reload is only accepted from
	// this host.
	AdminListen string `yaml:"admin_listen"`

	// TLS serves Listen over HTTPS when both files are named. They are read
	// again when they change.
	TLS TLS `yaml:"tls"`

	// Network is the network file: config.yml, version 3.
	Network string `yaml:"network"`

	// FallbackMirrors are names of mirrors to list when no mirror may be.
	FallbackMirrors []string `yaml:"fallback_mirrors"`

	// State is where a checker keeps its findings: dir:PATH, redis://HOST:PORT/DB,
	// redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB. Default none: every mirror's
	// health is Unknown, which is listed.
	State string `yaml:"state"`

	// StateMaxAge is the age from which findings are no longer believed, except
	// proven lies. Default 1h.
	StateMaxAge time.Duration `yaml:"state_max_age"`

	// Geo names the databases, .mmdb files. Default none: nobody has a place.
	Geo Geo `yaml:"geo"`

	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	// Default none: the peer is the client.
	TrustedProxies []string `yaml:"trusted_proxies"`

	// ClientHeader is the header in which trusted proxies name the client, and
	// nothing else: CF-Connecting-IP. Default X-Forwarded-For.
	ClientHeader string `yaml:"client_header"`

	// CloudRanges are the address ranges of aws, azure, gcp and oci, as files or
	// URLs in the provider's own format.
	CloudRanges map[string]string `yaml:"cloud_ranges"`

	// Limit is the number of URLs in a list, 1 to 100. Default 10.
	Limit int `yaml:"limit"`

	// SecretFile holds the secret that all nodes of one network share, so that a
	// client gets the same order from each. Default: derived from the network.
	SecretFile string `yaml:"secret_file"`

	// Stats is where statistics are kept, by all nodes of a network: dir:PATH, or
	// the URL of a Redis as for State. Default none: nothing is counted but for
	// metrics.
	Stats string `yaml:"stats"`

	// StatsDays is how long statistics are kept. Default 400, at least 35.
	StatsDays int `yaml:"stats_days"`

	// Node is the name of this node in statistics. Default: the host's name.
	Node string `yaml:"node"`

	// ListBytes is how many bytes one list leads its client to download, by the
	// name of the repository, or "*" for all others. Default 4,000,000.
	ListBytes map[string]int64 `yaml:"list_bytes"`

	// AllowPrivateAddresses lets fetched lists come from, and mirrors be on,
	// private addresses. Only for test networks.
	AllowPrivateAddresses bool `yaml:"allow_private_addresses"`

	// CacheDir holds what is expensive to make or to fetch: compiled databases,
	// lists, addresses. It is this server's alone. Default: meridian in the
	// user's cache directory.
	CacheDir string `yaml:"cache_dir"`

	// PublicURL is how clients reach this server, such as
	// https://mirrors.example.org: what files that it writes for them name. Default:
	// what the request says.
	PublicURL string `yaml:"public_url"`

	// RequestsPerSecond bounds what one client prefix may ask of the pages that
	// explain and of the API, not of lists. Default 5; negative: no bound.
	RequestsPerSecond float64 `yaml:"requests_per_second"`
}

// TLS names a certificate chain and its key, both PEM.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Geo names geolocation databases. One file may serve both. "demo" is a small
// one built in: documentation prefixes and loopback addresses.
type Geo struct {
	Location string `yaml:"location"`
	ASN      string `yaml:"asn"`
}

// demoGeo is the name of the database that is built in.
const demoGeo = "demo"

// Clouds are the providers whose ranges are known.
var Clouds = []string{"aws", "azure", "gcp", "oci"}

// Rooted returns the settings with every relative path made relative to dir, the
// directory of the file that they are from.
func (c Config) Rooted(dir string) Config {
	for _, p := range []*string{&c.Network, &c.TLS.Cert, &c.TLS.Key, &c.SecretFile, &c.CacheDir} {
		*p = rooted(dir, *p)
	}
	for _, p := range []*string{&c.Geo.Location, &c.Geo.ASN} {
		if *p != demoGeo {
			*p = rooted(dir, *p)
		}
	}
	for _, p := range []*string{&c.State, &c.Stats} {
		if path, ok := strings.CutPrefix(*p, "dir:"); ok {
			*p = "dir:" + rooted(dir, path)
		}
	}
	c.CloudRanges = maps.Clone(c.CloudRanges)
	for name, source := range c.CloudRanges {
		if !strings.Contains(source, "://") {
			c.CloudRanges[name] = rooted(dir, source)
		}
	}
	return c
}

func rooted(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// check finds what is wrong with settings, and puts the defaults in.
func (c *Config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Network == "" {
		bad(`missing "network": write network: network.yml, the file that describes the network`)
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8080"
	}
	for key, addr := range map[string]string{"listen": c.Listen, "admin_listen": c.AdminListen} {
		if addr == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			bad("%s: %q is not an address; write HOST:PORT, such as 127.0.0.1:8080", key, addr)
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		bad("tls: one file is missing; write both tls.cert and tls.key")
	}
	for _, p := range c.TrustedProxies {
		if _, err := parseNetwork(p); err != nil {
			bad("trusted_proxies: %q is not a network; write one such as 127.0.0.0/8 or 192.0.2.1", p)
		}
	}
	for name := range c.CloudRanges {
		if !slices.Contains(Clouds, name) {
			bad("cloud_ranges: unknown provider %q; write one of %s", name, strings.Join(Clouds, ", "))
		}
	}
	switch {
	case c.Limit == 0:
		c.Limit = 10
	case c.Limit < 0 || c.Limit > 100:
		bad("limit: %d is out of range; write 1 to 100", c.Limit)
	}
	switch {
	case c.StateMaxAge == 0:
		c.StateMaxAge = time.Hour
	case c.StateMaxAge < time.Minute:
		bad("state_max_age: %s is too short; write 1m or more", c.StateMaxAge)
	}
	if c.State != "" {
		if err := state.CheckURL(c.State); err != nil { // which quotes no password
			bad("state: %w; or leave it out", err)
		}
	}
	if c.Stats != "" {
		if err := stats.CheckURL(c.Stats); err != nil {
			bad("stats: %w; or leave it out", err)
		}
	}
	switch {
	case c.StatsDays == 0:
		c.StatsDays = 400
	case c.StatsDays < 35:
		bad("stats_days: %d is too few; write 35 or more: the last month is what people ask for", c.StatsDays)
	}
	switch {
	case c.Node == "":
		c.Node = nodeName()
	case !stats.ValidNode(c.Node):
		bad("node: %q is no name of a node; write letters, digits, dots and hyphens", c.Node)
	}
	for repo, n := range c.ListBytes {
		if n < 0 {
			bad("list_bytes: %s: %d is less than nothing; write a number of bytes", repo, n)
		}
	}
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			bad("public_url: %q is no address of a website; write one such as https://mirrors.example.org", c.PublicURL)
		}
		c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	}
	if c.RequestsPerSecond == 0 {
		c.RequestsPerSecond = 5
	}
	if c.CacheDir == "" {
		// Never below the directory for everybody's temporary files: what somebody
		// else put there would be believed.
		if base, err := os.UserCacheDir(); err == nil {
			c.CacheDir = filepath.Join(base, "meridian")
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// parseNetwork reads a network of any width, or an address as a network of one.
func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// A Source has the findings of a checker. It returns state.ErrNoSnapshot until
// there are any, and the same pointer as long as nothing has changed. A snapshot
// beside an error is the last good one.
type Source interface {
	Load(ctx context.Context) (*state.Snapshot, error)
}

// Options is what a server needs beside its settings. Only Config and Log are
// required.
type Options struct {
	Config Config
	Log    *slog.Logger

	// ReadConfig reads the settings again for a reload. Nil: they stay.
	ReadConfig func() (Config, error)

	// ConfigFile is what ReadConfig reads. A change of it is a reason to reload.
	ConfigFile string

	// MirrorsDir has the files of the mirrors, instead of what the network file
	// names.
	MirrorsDir string

	// Compile makes the snapshot out of the database mmdb, in a process of its
	// own if memory matters. Nil: in this one.
	Compile func(ctx context.Context, mmdb, out string) error

	// Source of findings; nil: what Config.State names.
	Source Source

	// Resolver of the mirrors' host names; nil: the system's.
	Resolver Resolver

	// Now is the clock of decisions. Nil: time.Now.
	Now func() time.Time

	// Metrics serves /metrics; nil: there is no such page.
	Metrics http.Handler

	// Version of the program, for the page of its status; "" is not known.
	Version string

	// Timeouts of both listeners. Zero ones have the defaults.
	Timeouts Timeouts
}

// Timeouts bound how long a client may take, and a stop. A list is one small
// write: who takes longer is broken or hostile.
type Timeouts struct {
	Header time.Duration // to send the header of a request; default 10s
	Read   time.Duration // to send the whole request; default 20s
	Write  time.Duration // from the end of the header to that of the answer; default 30s
	Idle   time.Duration // between two requests; default 75s
	Drain  time.Duration // for requests under way when the server stops; default 20s
}

// The default timeouts.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = 20 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 75 * time.Second
	drainTimeout  = 20 * time.Second
)

// withDefaults returns the timeouts with the defaults put in.
func (t Timeouts) withDefaults() Timeouts {
	return Timeouts{
		Header: cmp.Or(t.Header, headerTimeout),
		Read:   cmp.Or(t.Read, readTimeout),
		Write:  cmp.Or(t.Write, writeTimeout),
		Idle:   cmp.Or(t.Idle, idleTimeout),
		Drain:  cmp.Or(t.Drain, drainTimeout),
	}
}

// lastFlush bounds how long a stop waits for the store of statistics: with what it
// waits for requests, less than a service manager does.
const lastFlush = 5 * time.Second

// maxHeader bounds the header of a request, in bytes.
const maxHeader = 16 << 10

// Server serves mirrorlists. Its methods are safe for concurrent use.
type Server struct {
	opts   Options
	log    *slog.Logger
	table  atomic.Pointer[Table]
	now    func() time.Time
	keeper *keeper
	limit  *limiter
	counts counts

	kitchen kitchen
	larder  larder
	shelf   shelf
	status  atomic.Pointer[Status]
	cert    atomic.Pointer[tls.Certificate] // nil without TLS
	reload  chan reloadRequest

	stopped chan struct{} // closed when nobody receives from reload any more

	recorder   *stats.Recorder // nil: no statistics are kept
	statistics *stats.Reader   // of all nodes, or nil
}

// New loads everything once. It fails when the settings or the network file
// cannot be used; whatever else is wrong is reported by Status, and the server
// works without it.
func New(ctx context.Context, opts Options) (*Server, error) {
	if err := opts.Config.check(); err != nil {
		return nil, err
	}
	s := &Server{opts: opts, log: opts.Log, now: opts.Now, reload: make(chan reloadRequest), stopped: make(chan struct{})}
	if s.now == nil {
		s.now = time.Now
	}
	s.limit = newLimiter(opts.Config.RequestsPerSecond)
	s.kitchen = newKitchen()
	if where := opts.Config.Stats; where != "" {
		store, err := stats.Open(where)
		if err != nil {
			return nil, err
		}
		s.recorder = stats.NewRecorder(stats.Options{Store: store, Node: opts.Config.Node, Days: opts.Config.StatsDays, Now: s.now, Log: s.log})
		s.statistics = stats.NewReader(store, s.now)
	}
	s.keeper = newKeeper(s)
	if err := s.keeper.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Run serves until ctx ends, then lets the requests under way finish. ready is
// called with the addresses once connections are accepted; admin is "" without
// admin_listen.
func (s *Server) Run(ctx context.Context, ready func(main, admin string)) error {
	cfg := s.opts.Config
	handler, admin := s.Handlers()
	type door struct {
		*listener
		http.Handler
	}
	var doors []door
	open := func(addr string, h http.Handler) (string, error) {
		l, err := listen(addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return "", fmt.Errorf("mirrorlist: another program listens on %s: stop it, or write another address: %w", addr, err)
		}
		if err != nil {
			return "", fmt.Errorf("mirrorlist: %w", err)
		}
		doors = append(doors, door{l, h})
		return l.Addr().String(), nil
	}
	defer func() {
		for _, d := range doors {
			d.listener.Close()
		}
	}()
	mainAddr, err := open(cfg.Listen, handler)
	if err != nil {
		return err
	}
	var adminAddr string
	if cfg.AdminListen != "" {
		if adminAddr, err = open(cfg.AdminListen, admin); err != nil {
			return err
		}
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.keeper.run(ctx) })
	if s.recorder != nil {
		g.Go(func() error { return s.recorder.Run(ctx) })
	}
	limits := s.opts.Timeouts.withDefaults()
	for i, d := range doors {
		srv := &http.Server{
			Handler: d.Handler, ReadHeaderTimeout: limits.Header, ReadTimeout: limits.Read,
			WriteTimeout: limits.Write, IdleTimeout: limits.Idle, MaxHeaderBytes: maxHeader, ConnContext: s.withCaller,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		}
		serve := func() error { return srv.Serve(d.listener) }
		if i == 0 && cfg.TLS.Cert != "" {
			srv.TLSConfig = s.tlsConfig()
			serve = func() error { return srv.ServeTLS(d.listener, "", "") }
		}
		g.Go(func() error {
			if err := serve(); ctx.Err() == nil {
				return fmt.Errorf("mirrorlist: %w", err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), limits.Drain)
			defer cancel()
			if err := d.drain(drain, srv); err != nil {
				// No failure: a client that does not read its answer must not make
				// the service manager believe that the server broke.
				s.log.Warn("requests were cut off", "after", limits.Drain, "err", err)
				_ = srv.Close()
			}
			return nil
		})
	}
	if ready != nil {
		ready(mainAddr, adminAddr)
	}
	err = g.Wait()
	if s.recorder != nil {
		// The last request has been answered, and counted.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlush)
		defer cancel()
		if err := s.recorder.Close(last); err != nil {
			s.log.Error("the last counts are lost", "err", err)
		}
	}
	return err
}

// A listener counts its connections, so that a stop can wait for them.
type listener struct {
	*net.TCPListener
	open atomic.Int64
}

func listen(addr string) (*listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &listener{TCPListener: l.(*net.TCPListener)}, nil
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &connection{TCPConn: c, of: l}, nil
}

type connection struct {
	*net.TCPConn
	of     *listener
	closed atomic.Bool
}

func (c *connection) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.of.open.Add(-1)
	}
	return c.TCPConn.Close()
}

// drain accepts no more, and waits until each connection has been given the
// answer to the request that it was in the middle of. [http.Server.Shutdown]
// alone would hang up on those whose header was not complete.
func (l *listener) drain(ctx context.Context, srv *http.Server) error {
	l.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for l.open.Load() > 0 {
		// Each call closes the connections that are idle by now, or have said
		// nothing for five seconds.
		srv.SetKeepAlivesEnabled(false)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return srv.Shutdown(ctx)
}

// Reload reads every file again, now. With force it accepts what a change of
// files alone does not: that more than 30 % of the mirrors, or of a list of
// addresses, are gone at once. It needs Run.
func (s *Server) Reload(ctx context.Context, force bool) error {
	r := reloadRequest{force: force, done: make(chan error, 1)}
	select {
	case s.reload <- r:
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		return err
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errStopped = errors.New("the server is stopping")

func init() { gin.SetMode(gin.ReleaseMode) }
