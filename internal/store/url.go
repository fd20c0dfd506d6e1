package store

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A target is what a URL names: a directory or a Redis.
type target struct {
	dir string // then there is nothing else

	scheme string
	tls    bool

	addrs  []string // HOST:PORT; of the Sentinels if there is a master
	socket string   // path, in place of an address
	master string   // name that Sentinels know it by

	db     int
	prefix string // of all keys

	// A password is the one given, else that in the file, which is read for each
	// connection, else that in the environment.
	user, password, passwordFile       string
	sentinelUser, sentinelPasswordFile string

	// PEM files, which are read for each connection: certificates to believe in
	// place of the system's; and what to show to a server that wants to know who
	// asks.
	caFile, certFile, keyFile string
}

// Where passwords are found that neither the URL nor a file has.
const (
	passwordEnv         = "MERIDIAN_REDIS_PASSWORD"
	sentinelPasswordEnv = "MERIDIAN_SENTINEL_PASSWORD"
)

// masterLetters are what the name of a master is made of.
const masterLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_"

const urlForms = "write dir:PATH, redis://HOST:PORT/DB, redis+unix:///SOCKET or redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB; rediss in place of redis is with TLS"

// parseURL reads a URL. The standard library's parser is not used: it knows no
// lists of hosts, and its errors quote passwords.
func parseURL(raw string) (*target, error) {
	if path, ok := strings.CutPrefix(raw, "dir:"); ok {
		if path == "" {
			return nil, errors.New("no directory; write dir:/var/lib/meridian")
		}
		return &target{dir: path}, nil
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	t := &target{scheme: scheme, prefix: "meridian"}
	base, variant, _ := strings.Cut(scheme, "+")
	if !ok || base != "redis" && base != "rediss" || !slices.Contains([]string{"", "unix", "sentinel"}, variant) || base == "rediss" && variant == "unix" {
		return nil, errors.New("not a place that is known; " + urlForms)
	}
	t.tls = base == "rediss"
	rest, query, _ := strings.Cut(rest, "?")
	if err := t.options(query); err != nil {
		return nil, err
	}
	if variant == "unix" {
		user, path, ok := strings.Cut(rest, "/")
		if !ok || path == "" {
			return nil, errors.New("no path of a socket; write redis+unix:///run/redis/redis.sock?db=0")
		}
		if strings.Contains(path, "@") {
			return nil, errors.New("an @ in the path of a socket; in a user or password write %2F for /")
		}
		t.socket = "/" + path
		return t, t.credentials(strings.TrimSuffix(user, "@"))
	}
	// A password with a slash in it must be written with %2F; an @ need not be
	// told from the last one.
	hosts, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		if err := t.credentials(hosts[:i]); err != nil {
			return nil, err
		}
		hosts = hosts[i+1:]
	}
	port := "6379"
	if variant == "sentinel" {
		port = "26379"
		t.master, path, _ = strings.Cut(path, "/")
		if t.master == "" {
			return nil, errors.New("no name of the master; write redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB")
		}
		// As Sentinels allow. What is anything else may be a part of a password.
		if strings.ContainsFunc(t.master, func(r rune) bool { return !strings.ContainsRune(masterLetters, r) }) {
			return nil, errors.New("the name of the master has more than letters, digits, '.', '-' and '_'; in a user or password write %2F for /")
		}
	}
	for i, addr := range strings.Split(hosts, ",") {
		// A bad address is not quoted: it may be a part of a password.
		host, p := addr, port
		if strings.Contains(strings.TrimPrefix(addr, "["), ":") && !strings.HasSuffix(addr, "]") {
			var err error
			if host, p, err = net.SplitHostPort(addr); err != nil {
				host = ""
			}
		}
		host = strings.Trim(host, "[]")
		if n, err := strconv.Atoi(p); host == "" || strings.ContainsAny(host, "@ ") || err != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("host %d of the URL is not HOST:PORT; in a user or password write %%2F for /, %%3F for ? and %%25 for %%", i+1)
		}
		t.addrs = append(t.addrs, net.JoinHostPort(host, p))
	}
	if variant == "" && len(t.addrs) > 1 {
		return nil, errors.New("several hosts; write redis+sentinel:// for those of Sentinels, one host otherwise")
	}
	if path != "" {
		db, err := strconv.Atoi(path)
		if err != nil || db < 0 {
			return nil, errors.New("the last part of the URL is not the number of a database; write redis://HOST:PORT/0")
		}
		t.db = db
	}
	return t, nil
}

// credentials reads USER:PASSWORD.
func (t *target) credentials(userinfo string) error {
	user, password, _ := strings.Cut(userinfo, ":")
	var err, errPassword error
	t.user, err = url.PathUnescape(user)
	t.password, errPassword = url.PathUnescape(password)
	if err != nil || errPassword != nil { // which quote what they could not read
		return errors.New("user or password are not percent-encoded; write %25 for %")
	}
	return nil
}

// options reads what follows the question mark.
func (t *target) options(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil || strings.Contains(query, "@") { // an unescaped ? in a password
		return errors.New("what follows the ? is not KEY=VALUE&KEY=VALUE; in a user or password write %3F for ?")
	}
	for key, list := range values {
		value := list[len(list)-1]
		switch key {
		case "db":
			if t.db, err = strconv.Atoi(value); err != nil || t.db < 0 {
				return errors.New("db is not the number of a database; write db=0")
			}
		case "prefix":
			if value == "" || strings.ContainsAny(value, ": {}*?[]\\") {
				return errors.New("prefix is not a word; write prefix=meridian")
			}
			t.prefix = value
		case "password_file", "sentinel_password_file", "ca_file", "cert_file", "key_file":
			if !filepath.IsAbs(value) {
				return fmt.Errorf("%s is not an absolute path; write %s=/etc/meridian/NAME", key, key)
			}
			switch key {
			case "password_file":
				t.passwordFile = value
			case "sentinel_password_file":
				t.sentinelPasswordFile = value
			case "cert_file":
				t.certFile = value
			case "key_file":
				t.keyFile = value
			default:
				t.caFile = value
			}
		case "sentinel_user":
			t.sentinelUser = value
		default:
			return fmt.Errorf("there is no option %q; write one of ca_file, cert_file, db, key_file, password_file, prefix, sentinel_password_file, sentinel_user", key)
		}
	}
	switch {
	case (t.certFile == "") != (t.keyFile == ""):
		return errors.New("one of cert_file and key_file is missing; write both")
	case !t.tls && t.caFile+t.certFile != "":
		return errors.New("ca_file, cert_file and key_file are for TLS; write rediss in place of redis")
	}
	return nil
}

// String is the target without anything secret.
func (t *target) String() string {
	if t.dir != "" {
		return "dir:" + t.dir
	}
	if t.socket != "" {
		return t.scheme + "://" + t.socket + "?db=" + strconv.Itoa(t.db)
	}
	s := t.scheme + "://" + strings.Join(t.addrs, ",")
	if t.master != "" {
		s += "/" + t.master
	}
	return s + "/" + strconv.Itoa(t.db)
}

// secret returns a password: the one given, that of a file, or that of an
// environment variable.
func secret(given, file, variable string, getenv func(string) string) (string, error) {
	switch {
	case given != "":
		return given, nil
	case file == "":
		return getenv(variable), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
