package mirrorlist

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
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
	"/mirrors":                {"?", "?limit=1", "?q=hostile&health=broken&protocol=https&family=ipv4&sort=lag&order=desc&module=kitten&country=at", "?limit=1&cursor=MQpob3N0aWxlLmV4YW1wbGUub3Jn"},
	"/mirrors/{name}":         {"hostile.example.org"},
	"/mirrors/{name}/history": {"hostile.example.org/history", "hostile.example.org/history?limit=2"},
	"/map":                    {"?", "?limit=1"},
	"/propagation":            {"?", "?limit=1"},
	"/explain":                {"?version=9&repo=baseos", "?repo=baseos-9&arch=x86_64&ip=192.0.2.1", "?version=9.7&repo=baseos"},
	"/isos/{arch}/{version}":  {"x86_64/9", "x86_64/9.7", "x86_64/10-kitten?limit=1"},
	"/statistics/{table}":     {"lists", "mirrors?by=mirror", "countme?from=2026-01-01&to=2026-03-01&by=version&version=9.8", "lists.csv?by=country", "mirrors?by=mirror&limit=1"},
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
		{"/mirrors?limit=1001", "/mirrors", "400", "from 1 to 1000"},
		{"/mirrors?offset=10", "/mirrors", "400", "cursor"},
		{"/mirrors?cursor=xyz", "/mirrors", "400", "leave it out"},
		{"/propagation?limit=101", "/propagation", "400", "from 1 to 100"},
		{"/map?limit=0", "/map", "400", "from 1 to 1000"},
		{"/isos/x86_64/9?limit=0", "/isos/{arch}/{version}", "400", "from 1 to 1000"},
		{"/statistics/lists?limit=100001", "/statistics/{table}", "400", "from 1 to 100000"},
		{"/mirrors/hostile.example.org/history?limit=1001", "/mirrors/{name}/history", "400", "from 1 to 1000"},
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

// followed are the things of all parts of a list that grows, in order, by what
// names them; every part but the last leads to the next in two ways.
func followed(t *testing.T, h http.Handler, next, list, name string) (things []string) {
	t.Helper()
	for parts := 0; next != ""; parts++ {
		if parts > 300 {
			t.Fatal("the parts do not end")
		}
		w := serveOne(h, "GET", next, "198.51.100.1:1", nil)
		var part map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &part); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s: %v", next, w.Code, w.Body, err)
		}
		for _, thing := range part[list].([]any) {
			text, err := json.Marshal(thing)
			if err != nil {
				t.Fatal(err)
			}
			if m := regexp.MustCompile(name).FindSubmatch(text); m != nil {
				things = append(things, string(m[1]))
			}
		}
		following, _ := part["next"].(string)
		if link := w.Header().Get("Link"); following == "" && link != "" || following != "" && link != "<"+following+`>; rel="next"` {
			t.Errorf("%s: Link %q, next %q", next, link, following)
		}
		next = following
	}
	return things
}

func TestPartsOfAListAreTheList(t *testing.T) {
	h := fullWorld(t)
	for _, tt := range []struct {
		target, list, name string
		limit, want        int
	}{
		{"/api/v1/mirrors?sort=bandwidth&order=desc&", "mirrors", `"name":"([^"]+)"`, 333, 1001},
		{"/api/v1/mirrors?", "mirrors", `"name":"([^"]+)"`, 100, 1001},
		{"/api/v1/map?", "features", `"name":"([^"]+)"`, 300, 1001},
		{"/api/v1/propagation?", "publications", `"time":"([^"]+)"`, 5, 24},
		{"/api/v1/mirrors/mirror-0005.some-university.example.org/history?", "events", `"time":"([^"]+)"`, 700, 2000},
		{"/api/v1/statistics/lists?by=country,version&", "rows", `"labels":\[(.*?)\]`, 300, 0},
		{"/api/v1/isos/x86_64/9.8?", "mirrors", `"mirror":"([^"]+)"`, 70, 0},
	} {
		whole := followed(t, h, tt.target+"limit="+fmt.Sprint(map[bool]int{true: 1000, false: 100}[tt.want != 24]), tt.list, tt.name)
		parts := followed(t, h, tt.target+"limit="+fmt.Sprint(tt.limit), tt.list, tt.name)
		if tt.want > 0 && len(whole) != tt.want || len(whole) < 24 || !slices.Equal(whole, parts) {
			t.Errorf("%s: the list has %d things, want %d, and its parts %d", tt.target, len(whole), tt.want, len(parts))
		}
		if n := len(slices.Compact(slices.Sorted(slices.Values(parts)))); n != len(parts) {
			t.Errorf("%s: of %d things in parts %d are different", tt.target, len(parts), n)
		}
	}
	// Without a limit no part is larger than what is documented.
	for target, most := range map[string]int{"/api/v1/mirrors": 2_000_000, "/api/v1/map": 500_000, "/api/v1/propagation": 1_000_000, "/api/v1/status": 20_000} {
		if w := serveOne(h, "GET", target, "198.51.100.1:1", nil); w.Body.Len() > most {
			t.Errorf("%s has %d bytes", target, w.Body.Len())
		}
	}
}

// What comes and goes between two parts moves nothing else.
func TestPartsStayTogetherWhenMirrorsComeAndGo(t *testing.T) {
	dir := newFiles(t, 9)
	st := startIn(t, dir, nil)
	h, _ := st.Handlers()
	part := func(target string) (p apiMirrors, names string) {
		t.Helper()
		if err := json.Unmarshal(serveOne(h, "GET", target, "198.51.100.1:1", nil).Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		for _, m := range p.Mirrors {
			names += strings.TrimSuffix(m.Name, ".example.org") + " "
		}
		return p, names
	}
	p, names := part("/api/v1/mirrors?limit=4")
	if names != "m0 m1 m2 m3 " {
		t.Fatalf("the first part is %s", names)
	}
	writeFile(t, dir+"/mirrors.d/l9.yml", mirrorYAML("l9.example.org", ""))
	if err := os.Remove(dir + "/mirrors.d/m5.example.org.yml"); err != nil {
		t.Fatal(err)
	}
	if err := st.Reload(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, names := part(p.Next); names != "m4 m6 m7 m8 " {
		t.Errorf("after one came and one went the next part is %s", names)
	}
	if err := os.Remove(dir + "/mirrors.d/m3.example.org.yml"); err != nil {
		t.Fatal(err)
	}
	if err := st.Reload(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, names := part(p.Next); names != "m4 m6 m7 m8 " {
		t.Errorf("after the one went at which it began it is %s", names)
	}
}
