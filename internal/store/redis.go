package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// In Redis, PREFIX being "meridian" unless the URL says otherwise, there are
//
//	PREFIX:KIND                 set      names of the records
//	PREFIX:KIND:NAME:fields     hash     JSON by the name of the field
//	PREFIX:KIND:NAME:versions   zset     the version in which each field last changed
//	PREFIX:KIND:NAME:head       hash     id, token, version, taken: the stamp
//	PREFIX:KIND:NAME:lease      hash     id, token, by; expires
//	PREFIX:KIND:NAME:token      string   the highest token so far
//	PREFIX:log:KIND:NAME        list     entries, the newest first
//	PREFIX:changed:KIND         channel  a message for each change
//
// Whoever reads or writes does so by one script, of which Redis runs all or,
// where the connection breaks before it is whole, nothing.
type redisStore struct {
	target *target
	client *redis.Client
	step   func(string)

	asked atomic.Bool // for a certificate, and there was none to show
}

//go:embed lua/acquire.lua
var acquireLua string

//go:embed lua/release.lua
var releaseLua string

//go:embed lua/read.lua
var readLua string

//go:embed lua/commit.lua
var commitLua string

var (
	acquireScript = redis.NewScript(acquireLua)
	releaseScript = redis.NewScript(releaseLua)
	readScript    = redis.NewScript(readLua)
	commitScript  = redis.NewScript(commitLua)
)

// Timeouts of one exchange. A whole record is some megabytes.
const (
	dialTimeout  = 5 * time.Second
	replyTimeout = 10 * time.Second
)

// quiet keeps go-redis, which logs to standard error by itself, from doing so:
// what matters is in the errors that it returns.
var quiet = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

func newRedis(t *target, getenv func(string) string, step func(string)) *redisStore {
	quiet()
	credentials := func(context.Context) (string, string, error) {
		password, err := secret(t.password, t.passwordFile, passwordEnv, getenv)
		return t.user, password, err
	}
	s := &redisStore{target: t, step: step}
	if t.master == "" {
		o := &redis.Options{
			Network: "tcp", Protocol: 2, DB: t.db, CredentialsProviderContext: credentials,
			DialTimeout: dialTimeout, ReadTimeout: replyTimeout, WriteTimeout: replyTimeout, ContextTimeoutEnabled: true,
			// A step that may have been made is not made again without looking.
			MaxRetries: -1, DialerRetries: 1, PoolSize: poolSize, DisableIdentity: true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		}
		if t.socket != "" {
			o.Network, o.Addr = "unix", t.socket
		} else {
			o.Addr = t.addrs[0]
		}
		if t.tls {
			o.Dialer = s.dialTLS
		}
		s.client = redis.NewClient(o)
		return s
	}
	o := &redis.FailoverOptions{
		MasterName: t.master, SentinelAddrs: t.addrs, Protocol: 2, DB: t.db, CredentialsProviderContext: credentials,
		SentinelUsername: t.sentinelUser,
		DialTimeout:      dialTimeout, ReadTimeout: replyTimeout, WriteTimeout: replyTimeout, ContextTimeoutEnabled: true,
		MaxRetries: -1, DialerRetries: 1, PoolSize: poolSize, DisableIdentity: true,
	}
	// go-redis asks for this one only once.
	o.SentinelPassword, _ = secret("", t.sentinelPasswordFile, sentinelPasswordEnv, getenv)
	if t.tls {
		o.Dialer = s.dialTLS // to Sentinels too
	}
	s.client = redis.NewFailoverClient(o)
	return s
}

// poolSize is enough for a writer that renews its lease while it writes, and a
// reader.
const poolSize = 4

// dialTLS connects, and believes what the files say now. It says by its own name
// which of them is wrong.
func (s *redisStore) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	t, c := s.target, &tls.Config{MinVersion: tls.VersionTLS12}
	if t.caFile != "" {
		pem, err := os.ReadFile(t.caFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s has no certificate; write PEM into it", t.caFile)
		}
	}
	if t.certFile != "" {
		pair, err := tls.LoadX509KeyPair(t.certFile, t.keyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file, key_file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	} else {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			s.asked.Store(true)
			return new(tls.Certificate), nil // which is none
		}
	}
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: c}
	conn, err := d.DialContext(ctx, network, addr)
	if unknown, is := errors.AsType[x509.UnknownAuthorityError](err); is {
		if t.caFile == "" {
			return nil, fmt.Errorf("the certificate of %s is not signed by who this system trusts: %w; name the certificate of its authority with ca_file", addr, unknown)
		}
		return nil, fmt.Errorf("the certificate of %s is not signed by the authority in ca_file, %s: %w", addr, t.caFile, unknown)
	}
	return conn, err
}

func (s *redisStore) close() error { return s.client.Close() }

// fail adds which Redis it was. Errors of go-redis hold addresses and no
// passwords. A server that misses a certificate of ours says so after it has
// accepted the connection, and often hangs up before that is read.
func (s *redisStore) fail(err error) error {
	if s.asked.Load() && (remote(err) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)) {
		return fmt.Errorf("store: %s: %w; it asks who connects: name a certificate with cert_file and key_file", s.target, err)
	}
	return fmt.Errorf("store: %s: %w", s.target, err)
}

// remote says whether err is what the other side of a TLS connection complains
// about.
func remote(err error) bool {
	op, is := errors.AsType[*net.OpError](err)
	return is && op.Op == "remote error"
}

func (s *redisStore) key(parts ...string) string {
	return s.target.prefix + ":" + strings.Join(parts, ":")
}

func (s *redisStore) names(ctx context.Context, kind string) ([]string, error) {
	names, err := s.client.SMembers(ctx, s.key(kind)).Result()
	if err != nil {
		return nil, s.fail(err)
	}
	slices.Sort(names)
	return names, nil
}

func (s *redisStore) read(ctx context.Context, r ref, have *Record) (*Record, error) {
	for {
		rec, whole, err := s.readOnce(ctx, r, have)
		if err == nil && !whole && have != nil {
			// Removed fields are not listed, but missed.
			have = nil
			continue
		}
		return rec, err
	}
}

// readOnce reads what has changed since have. It reports whether the record has
// as many fields as it should.
func (s *redisStore) readOnce(ctx context.Context, r ref, have *Record) (rec *Record, whole bool, err error) {
	keys := []string{s.key(r.kind, r.name, "head"), s.key(r.kind, r.name, "fields"), s.key(r.kind, r.name, "versions")}
	args := []any{"", "", ""}
	if have != nil {
		args = []any{have.stamp.Writer, have.stamp.Token, have.stamp.Version}
	}
	reply, err := readScript.Run(ctx, s.client, keys, args...).StringSlice()
	if err != nil {
		return nil, false, s.fail(err)
	}
	if len(reply) == 0 {
		return nil, false, ErrNotFound
	}
	rec, count, all, err := parseReply(reply)
	if err != nil {
		return nil, false, &unreadable{s.fail(fmt.Errorf("record %s: %w; delete its keys to do without it", r, err))}
	}
	if have != nil && rec.stamp == have.stamp {
		return have, true, nil
	}
	if have != nil && !all {
		changed := rec.Fields
		rec.Fields = maps.Clone(have.Fields)
		maps.Copy(rec.Fields, changed)
	}
	return rec, len(rec.Fields) == count, nil
}

// parseReply reads what read.lua has returned: the record with the fields that
// follow, how many it should have, and whether these are all of them.
func parseReply(reply []string) (rec *Record, count int, all bool, err error) {
	if len(reply) < 6 || len(reply)%2 != 0 {
		return nil, 0, false, fmt.Errorf("a reply of %d parts", len(reply))
	}
	rec = &Record{Fields: make(map[string]string, (len(reply)-6)/2)}
	var errs [4]error
	rec.stamp.Writer = reply[0]
	rec.stamp.Token, errs[0] = strconv.ParseInt(reply[1], 10, 64)
	rec.stamp.Version, errs[1] = strconv.ParseInt(reply[2], 10, 64)
	rec.Taken, errs[2] = time.Parse(time.RFC3339Nano, reply[3])
	count, errs[3] = strconv.Atoi(reply[4])
	for i := 6; i < len(reply); i += 2 {
		rec.Fields[reply[i]] = reply[i+1]
	}
	return rec, count, reply[5] == "1", errors.Join(errs[:]...)
}

func (s *redisStore) log(ctx context.Context, l ref) ([]string, error) {
	entries, err := s.client.LRange(ctx, s.key("log", l.kind, l.name), 0, -1).Result()
	if err != nil {
		return nil, s.fail(err)
	}
	slices.Reverse(entries)
	return entries, nil
}

// watch calls changed for each message, and each time it has subscribed: what was
// said in between was not heard.
func (s *redisStore) watch(ctx context.Context, kind string, changed func()) {
	sub := s.client.Subscribe(ctx, s.key("changed", kind))
	defer sub.Close()
	heard := sub.ChannelWithSubscriptions()
	for {
		select {
		case <-ctx.Done():
			return
		case msg, ok := <-heard:
			if !ok {
				return
			}
			if s, ok := msg.(*redis.Subscription); ok && s.Kind != "subscribe" {
				continue
			}
			changed()
		}
	}
}

// A redisWriter writes one record.
type redisWriter struct {
	s   *redisStore
	ref ref
	id  string
	by  string
	ttl time.Duration
}

func (s *redisStore) writer(r ref, id string, ttl time.Duration) recordWriter {
	host, _ := os.Hostname()
	return &redisWriter{s: s, ref: r, id: id, by: fmt.Sprintf("process %d of %s", os.Getpid(), host), ttl: ttl}
}

func (w *redisWriter) key(part string) string { return w.s.key(w.ref.kind, w.ref.name, part) }

func (w *redisWriter) acquire(ctx context.Context, _ int64) (int64, error) {
	w.s.step("acquire")
	keys := []string{w.key("lease"), w.key("token")}
	reply, err := acquireScript.Run(ctx, w.s.client, keys, w.id, w.by, w.ttl.Milliseconds()).StringSlice()
	if err != nil {
		return 0, w.s.fail(err)
	}
	if len(reply) == 2 {
		return 0, fmt.Errorf("store: lease of %s: %w", w.ref, &HeldError{reply[1]})
	}
	token, err := strconv.ParseInt(strings.Join(reply, " "), 10, 64)
	if err != nil {
		return 0, w.s.fail(fmt.Errorf("lease of %s: %w", w.ref, err))
	}
	return token, nil
}

func (w *redisWriter) release(ctx context.Context, token int64) error {
	if err := releaseScript.Run(ctx, w.s.client, []string{w.key("lease")}, w.id, token).Err(); err != nil {
		return w.s.fail(err)
	}
	return nil
}

func (w *redisWriter) commit(ctx context.Context, base, next *Record, c *Change, whole bool) (*Record, error) {
	set, remove, replace := c.Set, c.Remove, "0"
	if whole {
		set, remove, replace = next.Fields, nil, "1"
	}
	was := []any{"", "", ""}
	if base != nil {
		was = []any{base.stamp.Writer, base.stamp.Token, base.stamp.Version}
	}
	keys := []string{w.key("lease"), w.key("head"), w.key("fields"), w.key("versions"), w.s.key(w.ref.kind)}
	args := append([]any{w.id, next.stamp.Token, next.stamp.Version, next.Taken.UTC().Format(time.RFC3339Nano), replace}, was...)
	now := time.Now()
	args = append(args, w.ref.name, w.s.key("changed", w.ref.kind), maxLogEntries,
		now.Add(-maxLogAge).UTC().Format("2006-01-02T15:04:05"), int(maxLogAge.Seconds()))
	args = append(args, len(set))
	for name, value := range set {
		args = append(args, name, value)
	}
	args = append(args, len(remove))
	for _, name := range remove {
		args = append(args, name)
	}
	args = append(args, len(c.Log))
	logs := map[ref]int{}
	for _, e := range c.Log {
		l := ref{e.Kind, e.Name}
		if logs[l] == 0 {
			keys = append(keys, w.s.key("log", e.Kind, e.Name))
			logs[l] = len(logs) + 1
		}
		args = append(args, logs[l], e.Value)
	}
	w.s.step("commit")
	switch reply, err := commitScript.Run(ctx, w.s.client, keys, args...).Text(); {
	case err != nil:
		return nil, w.s.fail(err)
	case reply == "lost":
		return nil, errLost
	case reply == "moved":
		return nil, errMoved
	}
	next.Taken = next.Taken.UTC()
	return next, nil
}
