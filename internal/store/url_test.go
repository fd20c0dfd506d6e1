package store

import (
	"strings"
	"testing"
)

func TestURLs(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"dir:/var/lib/meridian", "dir:/var/lib/meridian"},
		{"dir:relative", "dir:relative"},
		{"redis://localhost", "redis://localhost:6379/0"},
		{"redis://localhost:7000", "redis://localhost:7000/0"},
		{"redis://localhost:7000/3", "redis://localhost:7000/3"},
		{"redis://localhost/?db=3", "redis://localhost:6379/3"},
		{"rediss://redis.example.org/1?ca_file=/etc/ca.pem", "rediss://redis.example.org:6379/1"},
		{"redis://me:secret@10.0.0.1:7000/3", "redis://10.0.0.1:7000/3"},
		{"redis://:sec@ret@10.0.0.1/3", "redis://10.0.0.1:6379/3"},
		{"redis://:sec:ret@[::1]:7000/3", "redis://[::1]:7000/3"},
		{"redis://[::1]/3?password_file=/etc/secret", "redis://[::1]:6379/3"},
		{"redis+unix:///run/redis/redis.sock", "redis+unix:///run/redis/redis.sock?db=0"},
		{"redis+unix://me:secret@/run/redis/redis.sock?db=4", "redis+unix:///run/redis/redis.sock?db=4"},
		{"redis+sentinel://a,b:7000,[::1]/m", "redis+sentinel://a:26379,b:7000,[::1]:26379/m/0"},
		{"rediss+sentinel://me:secret@a:1/m/2?sentinel_user=x&sentinel_password_file=/x", "rediss+sentinel://a:1/m/2"},
	} {
		target, err := parseURL(tt.url)
		if err != nil || target.String() != tt.want {
			t.Errorf("%s is read as %v, %v; want %s", tt.url, target, err, tt.want)
		}
	}
	// Whatever is wrong with a URL, a password in it is not told.
	for _, tt := range []struct{ url, want string }{
		{"", "write dir:PATH, redis://HOST:PORT/DB"},
		{"/var/lib/meridian", "write dir:PATH, redis://HOST:PORT/DB"},
		{"dir:", "write dir:/var/lib/meridian"},
		{"redis:localhost", "write dir:PATH, redis://HOST:PORT/DB"},
		{"http://:s3cret@localhost", "write dir:PATH, redis://HOST:PORT/DB"},
		{"redis+cluster://:s3cret@localhost", "write dir:PATH, redis://HOST:PORT/DB"},
		{"rediss+unix:///x", "write dir:PATH, redis://HOST:PORT/DB"},
		{"redis://", "host 1 of the URL is not HOST:PORT"},
		{"redis://:s3cret@", "host 1 of the URL is not HOST:PORT"},
		{"redis://:s3cret@localhost:port/0", "host 1 of the URL is not HOST:PORT"},
		{"redis://:s3cret@localhost:0/0", "host 1 of the URL is not HOST:PORT"},
		{"redis://:s3cret@localhost:70000/0", "host 1 of the URL is not HOST:PORT"},
		{"redis://:s3/cret@localhost:6379/0", "write %2F for /"},
		{"redis://:x/s3cret@localhost:6379/0", "write %2F for /"},
		{"redis://:x?s3cret@localhost:6379/0", "write %3F for ?"},
		{"redis://:x%s3cret@localhost:6379/0", "write %25 for %"},
		{"redis://:s3cret@a:1,b:2/0", "write redis+sentinel://"},
		{"redis://:s3cret@localhost/zero", "is not the number of a database"},
		{"redis://:s3cret@localhost/-1", "is not the number of a database"},
		{"redis://:s3cret@localhost/0/1", "is not the number of a database"},
		{"redis+sentinel://:s3cret@a:1", "no name of the master"},
		{"redis+sentinel://:s3cret@a:1//0", "no name of the master"},
		{"redis+unix://", "no path of a socket"},
		{"redis+unix://me:s3/cret@/run/redis.sock", "in a user or password write %2F for /"},
		{"redis+sentinel://m/e:s3cret@localhost/m", "in a user or password write %2F for /"},
		{"redis+unix://:s3cret@", "no path of a socket"},
		{"redis://localhost?db=one", "db is not the number of a database; write db=0"},
		{"redis://localhost?prefix=a:b", "prefix is not a word"},
		{"redis://localhost?password=s3cret", "write one of ca_file, cert_file, db, key_file, password_file"},
		{"redis://localhost?password_file=s3cret", "password_file is not an absolute path; write password_file=/etc/meridian/NAME"},
		{"redis://localhost?a=%zz", "KEY=VALUE"},
		{"rediss://localhost?cert_file=/etc/meridian/redis.crt", "one of cert_file and key_file is missing; write both"},
		{"redis://localhost?ca_file=/etc/meridian/ca.crt", "for TLS; write rediss in place of redis"},
	} {
		err := CheckURL(tt.url)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.url, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "cret") {
			t.Errorf("%s: the error tells the password: %v", tt.url, err)
		}
		if _, open := Open(tt.url, Options{}); open == nil || open.Error() != "store: "+err.Error() {
			t.Errorf("%s: it opens with %v", tt.url, open)
		}
	}
}

// Whatever a URL is, no error quotes the password in it.
func FuzzURL(f *testing.F) {
	f.Add("redis://", "s3cret", "@localhost:6379/0")
	f.Add("redis+sentinel://me:", "s/3?c@r%et", "@a:1,b:2/m/0?db=1")
	f.Add("redis+sentinel://me/", "s3cret for all", "@a:1/m")
	f.Add("redis+unix://me/", "s3cret for all", "/redis.sock")
	f.Fuzz(func(t *testing.T, before, password, after string) {
		target, err := parseURL(before + ":" + password + "@" + after)
		if len(password) < 8 || strings.Contains(before+after+urlForms, password) {
			return // it is in what is no secret, too
		}
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("%v tells the password", err)
		}
		if target != nil && target.dir == "" && strings.Contains(target.String(), password) {
			t.Errorf("%v tells the password", target)
		}
	})
}
