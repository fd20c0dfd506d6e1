package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"meridian/checker/state"
)

// Webhook is a URL that events are posted to: {"events": […]} as JSON, in the
// form that the history has, at most 100 at a time.
type Webhook struct {
	URL string `yaml:"url"`

	// SecretFile holds the key of the header X-Meridian-Signature, which is
	// "sha256=" and the HMAC-SHA256 of the body in hexadecimal digits. Without it
	// there is no such header.
	SecretFile string `yaml:"secret_file"`
}

const (
	maxPost     = 100
	postTimeout = 30 * time.Second

	// SignatureHeader proves who posted.
	SignatureHeader = "X-Meridian-Signature"
)

func (w *Webhook) check() error {
	u, err := url.Parse(w.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("notify.webhook.url: not a URL; write one like https://hooks.example.org/meridian")
	}
	return nil
}

// Sign returns the value of SignatureHeader for a body.
func Sign(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func (w *Webhook) deliverer(o Options) func(context.Context, []state.Event) error {
	client := &http.Client{
		Timeout: postTimeout,
		// A body that is signed for one host is nobody else's.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context, events []state.Event) error {
		for len(events) > 0 {
			n := min(len(events), maxPost)
			if err := w.post(ctx, client, o.Secret, events[:n]); err != nil {
				return &undelivered{events, err}
			}
			events = events[n:]
		}
		return nil
	}
}

func (w *Webhook) post(ctx context.Context, client *http.Client, secret []byte, events []state.Event) error {
	body, err := json.Marshal(struct {
		Events []state.Event `json:"events"`
	}{events})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "meridian-checker")
	if len(secret) > 0 {
		req.Header.Set(SignatureHeader, Sign(secret, body))
	}
	resp, err := client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the URL may hold a token
		}
		return fmt.Errorf("webhook: %w", err)
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can serve again
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("webhook: status %s; it must answer 2xx", resp.Status)
	}
	return nil
}
