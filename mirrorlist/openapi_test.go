package mirrorlist

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v5"
)

// apiWorld is a server that can answer every operation with something.
func apiWorld(t testing.TB) http.Handler {
	world := newCheckedWorld()
	return pagesServer(t, pagesWorld, func(o *Options) {
		o.Source, o.Now = world, func() time.Time { return pagesNow }
		o.Config.Stats = "dir:" + t.TempDir()
	})
}

// apiTargets are requests for each operation that between them answer with all that
// there is.
var apiTargets = map[string][]string{
	"/mirrors":                {"?", "?limit=1", "?q=hostile&health=broken&protocol=https&family=ipv4&sort=lag&order=desc&module=kitten&country=at", "?offset=10"},
	"/mirrors/{name}":         {"hostile.example.org"},
	"/mirrors/{name}/history": {"hostile.example.org/history", "hostile.example.org/history?limit=1&offset=1"},
	"/explain":                {"?version=9&repo=baseos", "?repo=baseos-9&arch=x86_64&ip=192.0.2.1", "?version=9.7&repo=baseos"},
	"/isos/{arch}/{version}":  {"x86_64/9", "x86_64/9.7", "x86_64/10-kitten"},
	"/statistics/{table}":     {"lists", "mirrors?by=mirror", "countme?from=2026-01-01&to=2026-03-01&by=version&version=9.8", "lists.csv?by=country"},
}

// Every answer is what the document says, field by field; every route is in the
// document, and every path of the document is a route.
func TestAPIIsWhatItsDocumentSays(t *testing.T) {
	h := apiWorld(t)
	w := serveOne(h, "GET", "/api/v1/openapi.json", "198.51.100.1:1", nil)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Parameters  []struct {
				Name, In string
				Required bool
			}
			Responses map[string]struct {
				Content map[string]struct{ Schema json.RawMessage }
			}
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d: %v", w.Code, err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("openapi is %q", doc.OpenAPI)
	}

	// OpenAPI 3.1 schemas are those of JSON Schema 2020-12.
	compiler := jsonschema.NewCompiler()
	compiler.Draft = jsonschema.Draft2020
	compiler.AssertFormat = true
	if err := compiler.AddResource("openapi.json", bytes.NewReader(w.Body.Bytes())); err != nil {
		t.Fatal(err)
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	validate := func(path, code, kind string, body []byte) error {
		s, err := compiler.Compile("openapi.json#/paths/" + escape.Replace(path) + "/get/responses/" + code + "/content/" + escape.Replace(kind) + "/schema")
		if err != nil {
			return err
		}
		var v any
		if err := json.Unmarshal(body, &v); err != nil {
			return err
		}
		return s.Validate(v)
	}

	ids := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		op := doc.Paths[path]["get"]
		if op.OperationID == "" || ids[op.OperationID] {
			t.Errorf("%s: operationId %q is missing or there twice", path, op.OperationID)
		}
		ids[op.OperationID] = true
		inPath := regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1)
		for _, p := range op.Parameters {
			named := slices.ContainsFunc(inPath, func(m []string) bool { return m[1] == p.Name })
			if named != (p.In == "path") || named != p.Required {
				t.Errorf("%s: parameter %s is in %q, required: %v", path, p.Name, p.In, p.Required)
			}
		}
		targets := []string{path}
		if len(inPath) > 0 || apiTargets[strings.TrimPrefix(path, apiRoot)] != nil {
			base, _, _ := strings.Cut(path, "{")
			targets = nil
			for _, rest := range apiTargets[strings.TrimPrefix(path, apiRoot)] {
				targets = append(targets, base+rest)
			}
		}
		if len(targets) == 0 {
			t.Errorf("%s is documented, and no test asks for it", path)
		}
		for _, target := range targets {
			w := serveOne(h, "GET", target, "192.0.2.9:1", nil)
			kind := w.Header().Get("Content-Type")
			if w.Code != http.StatusOK {
				t.Errorf("%s: %d %s", target, w.Code, w.Body)
				continue
			}
			if w.Header().Get("ETag") == "" || w.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s: ETag %q, Access-Control-Allow-Origin %q", target, w.Header().Get("ETag"), w.Header().Get("Access-Control-Allow-Origin"))
			}
			if _, ok := op.Responses["200"].Content[kind]; !ok {
				t.Errorf("%s answers with %s, which is not documented", target, kind)
				continue
			}
			if kind == "application/json" {
				if err := validate(path, "200", kind, w.Body.Bytes()); err != nil {
					t.Errorf("%s is not what is documented: %#v\n%s", target, err, w.Body)
				}
			}
			for _, never := range []string{"secret.example.org", "hidden@", "192.0.2.0/"} {
				if strings.Contains(w.Body.String(), never) {
					t.Errorf("%s names %q", target, never)
				}
			}
		}
	}

	documented := map[string]bool{}
	for path := range doc.Paths {
		documented[path] = true
	}
	for _, op := range operations() {
		if !documented[apiRoot+op.path] {
			t.Errorf("%s is not documented", op.path)
		}
	}

	for _, tt := range []struct{ target, path, code, says string }{
		{"/mirrors?limit=0", "/mirrors", "400", "from 1 to 1000"},
		{"/mirrors?sort=size", "/mirrors", "400", "name, sponsor"},
		{"/mirrors?module=nope", "/mirrors", "400", "/api/v1/network"},
		{"/mirrors/nobody.example.org", "/mirrors/{name}", "404", "no public mirror"},
		{"/mirrors/secret.example.org/history", "/mirrors/{name}/history", "404", "no public mirror"},
		{"/explain", "/explain", "400", "version="},
		{"/explain?version=7&repo=baseos", "/explain", "404", "9.8"},
		{"/explain?version=9&repo=baseos&ip=x", "/explain", "400", "192.0.2.1"},
		{"/isos/mips/9", "/isos/{arch}/{version}", "404", "x86_64"},
		{"/statistics/nope", "/statistics/{table}", "404", "lists"},
		{"/statistics/lists?by=size", "/statistics/{table}", "400", "country"},
	} {
		w := serveOne(h, "GET", apiRoot+tt.target, "198.51.100.1:1", map[string]string{"Accept": "text/html"})
		if fmt.Sprint(w.Code) != tt.code || w.Header().Get("Content-Type") != "application/problem+json" || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: %d, %s: %s; want %s with %q", tt.target, w.Code, w.Header().Get("Content-Type"), w.Body, tt.code, tt.says)
			continue
		}
		if err := validate(apiRoot+tt.path, tt.code, "application/problem+json", w.Body.Bytes()); err != nil {
			t.Errorf("%s: %#v", tt.target, err)
		}
	}
	if w := serveOne(h, "GET", apiRoot+"/nope", "198.51.100.1:1", nil); w.Code != http.StatusNotFound || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("what is not there: %d, %s", w.Code, w.Header().Get("Content-Type"))
	}
	if w := serveOne(h, "POST", apiRoot+"/network", "198.51.100.1:1", nil); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("POST: %d, %s", w.Code, w.Header().Get("Content-Type"))
	}
	if w := serveOne(h, "OPTIONS", apiRoot+"/network", "198.51.100.1:1", map[string]string{"Origin": "https://elsewhere.example"}); w.Code != http.StatusOK || w.Header().Get("Access-Control-Allow-Headers") != "If-None-Match" {
		t.Errorf("a preflight: %d, %v", w.Code, w.Header())
	}
}

func TestPartsOfAListAreTheList(t *testing.T) {
	h := pagesServer(t, bigWorld())
	var names []string
	next := "/api/v1/mirrors?limit=333&sort=bandwidth&order=desc"
	for parts := 0; next != ""; parts++ {
		if parts > 4 {
			t.Fatal("the parts do not end")
		}
		w := serveOne(h, "GET", next, "198.51.100.1:1", nil)
		var part apiMirrors
		if err := json.Unmarshal(w.Body.Bytes(), &part); err != nil || part.Total != 1001 {
			t.Fatalf("%s: total %d: %v", next, part.Total, err)
		}
		for _, m := range part.Mirrors {
			names = append(names, m.Name)
		}
		if link := w.Header().Get("Link"); (part.Next == "") != (link == "") || !strings.Contains(link, part.Next) {
			t.Errorf("%s: Link %q, next %q", next, link, part.Next)
		}
		next = part.Next
	}
	slices.Sort(names)
	if n := len(slices.Compact(names)); n != 1001 {
		t.Errorf("the parts have %d mirrors, want 1001", n)
	}
}
