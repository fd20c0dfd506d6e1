package store

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// Documents are small files of several nodes, each in one piece. A document is
// called NODE/NAME; a node writes its own, and reads those of all. There is no
// lease: whoever may write, may.
type Documents interface {
	// Update replaces a document by what change makes of it, and nobody else's
	// change comes between: nil where there is none yet. The document stays as it
	// is when change returns nil. Change may be called again. When Update returns
	// an error, the document may be the old or the new one.
	Update(ctx context.Context, name string, change func(old []byte) ([]byte, error)) error

	// List returns the names of all documents, each with a tag that is another
	// whenever the content is.
	List(ctx context.Context) (map[string]string, error)

	// Load returns a document. Its error is fs.ErrNotExist, wrapped, where there
	// is none.
	Load(ctx context.Context, name string) ([]byte, error)

	// Remove removes a document, if there is one.
	Remove(ctx context.Context, name string) error
}

// OpenDocuments returns the documents of the place that url names: see Open.
func OpenDocuments(url string, o Options) (Documents, error) {
	s, err := Open(url, o)
	if err != nil {
		return nil, err
	}
	return s.Documents(), nil
}

// Documents returns the documents that are in the same place.
func (s *Store) Documents() Documents {
	switch b := s.b.(type) {
	case *redisStore:
		return &redisDocuments{b}
	default:
		return OpenDirDocuments(b.(*dir).path)
	}
}

// In Redis, documents are two hashes by name: PREFIX:documents has them, and
// PREFIX:documents:tags a digest of each.
type redisDocuments struct{ s *redisStore }

//go:embed lua/replace.lua
var replaceLua string

var replaceScript = redis.NewScript(replaceLua)

// updateRest is for how long, at most, an update waits before it begins anew
// because another came between.
const updateRest = 50 * time.Millisecond

func (d *redisDocuments) keys() []string {
	return []string{d.s.key("documents"), d.s.key("documents", "tags")}
}

func (d *redisDocuments) Update(ctx context.Context, name string, change func(old []byte) ([]byte, error)) error {
	for try := 0; ; try++ {
		if try > 0 {
			rest := time.NewTimer(rand.N(min(updateRest, time.Millisecond<<min(try, 10))))
			select {
			case <-ctx.Done():
				rest.Stop()
				return d.s.fail(fmt.Errorf("document %s is changed by others all the time: %w", name, ctx.Err()))
			case <-rest.C:
			}
		}
		old, err := d.Load(ctx, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		was := ""
		if err == nil {
			was = tagOf(old)
		}
		data, err := change(old)
		if err != nil || data == nil {
			return err
		}
		done, err := replaceScript.Run(ctx, d.s.client, d.keys(), name, was, tagOf(data), data).Bool()
		if err != nil {
			return d.s.fail(err)
		}
		if done {
			return nil
		}
	}
}

func tagOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

func (d *redisDocuments) List(ctx context.Context) (map[string]string, error) {
	tags, err := d.s.client.HGetAll(ctx, d.keys()[1]).Result()
	if err != nil {
		return nil, d.s.fail(err)
	}
	return tags, nil
}

func (d *redisDocuments) Load(ctx context.Context, name string) ([]byte, error) {
	data, err := d.s.client.HGet(ctx, d.keys()[0], name).Bytes()
	if errors.Is(err, redis.Nil) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, d.s.fail(fmt.Errorf("document %s: %w", name, err))
	}
	return data, nil
}

func (d *redisDocuments) Remove(ctx context.Context, name string) error {
	_, err := d.s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range d.keys() {
			p.HDel(ctx, key, name)
		}
		return nil
	})
	if err != nil {
		return d.s.fail(err)
	}
	return nil
}
