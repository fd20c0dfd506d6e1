package mirrorlist

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
)

// The API is one table: its routes and its OpenAPI document are made from it, so
// that neither can have what the other lacks. Names and meanings of fields stay;
// new ones are added.

const apiRoot = "/api/v1"

// An operation is one URL of the API.
type operation struct {
	path    string // below apiRoot, with {parameters}
	id      string
	summary string
	params  []parameter
	result  any    // a value of the type that is answered as JSON
	kind    string // in which else it is answered; "": none
	errors  map[int]string
	handler func(*Server, *gin.Context) (*response, error)
}

// A parameter is one of a path, if it is in the path, or else of the query.
type parameter struct {
	name, doc string
	enum      []string
	integer   bool
	least     int
	most      int
	preset    int
}

var (
	paramName    = parameter{name: "name", doc: "of a mirror that is not private"}
	paramArch    = parameter{name: "arch", doc: "an architecture, such as x86_64"}
	paramCursor  = parameter{name: "cursor", doc: "what the URL of the next part has; the first part without it"}
	unknownName  = map[int]string{404: "no public mirror has that name"}
	badParameter = map[int]string{400: "a parameter is malformed"}
	badOrUnknown = map[int]string{400: "a parameter is malformed", 404: "there is no such version, repository or architecture"}
)

// paramLimit is how long a part of a list is.
func paramLimit(preset, most int) parameter {
	return parameter{name: "limit", doc: "how many at most", integer: true, least: 1, most: most, preset: preset}
}

// operations are all of them.
func operations() []operation {
	return []operation{
		{
			path: "/mirrors", id: "listMirrors", summary: "The mirrors that are not private", result: apiMirrors{}, errors: badParameter,
			params: []parameter{
				{name: "q", doc: "words, each of which is in the name, sponsor, city, state or country"},
				{name: "country", doc: "ISO 3166-1 alpha-2"},
				{name: "health", doc: "of the mirror as a whole", enum: healthNames},
				{name: "protocol", doc: "one that the mirror has", enum: mirrorProtocols},
				{name: "family", doc: "one that the mirror is reached over", enum: mirrorFamilies},
				{name: "module", doc: "an optional tree that the mirror has"},
				{name: "sort", doc: "by name without it", enum: mirrorSorts},
				{name: "order", doc: "ascending without it", enum: []string{"asc", "desc"}},
				paramLimit(mostMirrors, mostMirrors), paramCursor,
			},
			handler: (*Server).mirrorsOperation,
		},
		{
			path: "/mirrors/{name}", id: "getMirror", summary: "Everything public about one mirror", result: apiMirrorDetail{}, errors: unknownName,
			params:  []parameter{paramName},
			handler: (*Server).mirrorOperation,
		},
		{
			path: "/mirrors/{name}/history", id: "getMirrorHistory", summary: "What happened to one mirror", result: apiHistory{}, errors: map[int]string{400: badParameter[400], 404: unknownName[404]},
			params:  []parameter{paramName, paramLimit(someEvents, mostEvents), paramCursor},
			handler: (*Server).historyOperation,
		},
		{
			path: "/map", id: "getMap", summary: "Where the mirrors are, as GeoJSON", result: apiMap{}, errors: badParameter,
			params:  []parameter{paramLimit(mostMirrors, mostMirrors), paramCursor},
			handler: (*Server).mapOperation,
		},
		{
			path: "/isos", id: "listISOs", summary: "What ISO images there are", result: apiISOs{},
			handler: (*Server).isosOperation,
		},
		{
			path: "/isos/{arch}/{version}", id: "getISOs", summary: "The images of a version and architecture, and the mirrors that have them", result: apiISODetail{},
			errors:  map[int]string{400: badParameter[400], 404: "there is no such version or architecture"},
			params:  []parameter{{name: "arch", doc: "an architecture"}, {name: "version", doc: "a version, or an alias of one"}, paramLimit(mostMirrors, mostMirrors), paramCursor},
			handler: (*Server).isoOperation,
		},
		{
			path: "/status", id: "getStatus", summary: "How the network and this node of it are", result: apiStatus{},
			handler: (*Server).statusOperation,
		},
		{
			path: "/propagation", id: "getPropagation", summary: "What was published, and how it reached the mirrors", result: apiPublications{}, errors: badParameter,
			params:  []parameter{paramLimit(somePublications, mostPublications), paramCursor},
			handler: (*Server).propagationOperation,
		},
		{
			path: "/statistics/{table}", id: "getStatistics", summary: "What was served, counted without clients; with .csv behind the name as CSV", result: apiStatistics{}, kind: typeCSV,
			errors: map[int]string{400: badParameter[400], 404: "there is no such table, or nothing is counted"},
			params: []parameter{
				{name: "table", doc: "lists, countme or mirrors; with .csv behind it as CSV"},
				{name: "from", doc: "the first day, YYYY-MM-DD; four weeks ago without it"}, {name: "to", doc: "the last day; today without it"},
				{name: "by", doc: "columns to tell apart, with commas between; period, which is a day or for countme a week, without it"},
				{name: "country", doc: "only that, of a table that has the column"}, {name: "version", doc: "only that"}, {name: "repo", doc: "only that"}, {name: "arch", doc: "only that"},
				{name: "age", doc: "only that: 1 first week, 2 first month, 3 half a year, 4 longer"}, {name: "variant", doc: "only that"}, {name: "system", doc: "only that"}, {name: "mirror", doc: "only that"},
				paramLimit(someRows, mostRows), paramCursor,
			},
			handler: (*Server).statisticsOperation,
		},
		{
			path: "/network", id: "getNetwork", summary: "What can be asked for: versions, repositories, architectures", result: apiNetwork{},
			handler: (*Server).networkOperation,
		},
		{
			path: "/explain", id: "explain", summary: "Why a client gets the list that it gets", result: Explanation{}, errors: badOrUnknown,
			params: []parameter{
				{name: "version", doc: "as in the URL of a list"}, {name: "repo", doc: "as in the URL of a list; or NAME-VERSION, without version"},
				paramArch, {name: "ip", doc: "the client's address; your own without it"},
				{name: "protocol", doc: "http or https"}, {name: "country", doc: "ISO 3166-1 alpha-2"}, {name: "user_agent", doc: "of the client"},
			},
			handler: (*Server).explainOperation,
		},
		{
			path: "/openapi.json", id: "getOpenAPI", summary: "This document", result: map[string]any{},
			handler: (*Server).openAPIOperation,
		},
	}
}

// apiRoutes adds the API.
func (s *Server) apiRoutes(r *gin.Engine) {
	for _, op := range operations() {
		path := strings.NewReplacer("{", ":", "}", "").Replace(apiRoot + op.path)
		answered := s.dear(func(c *gin.Context) (*response, error) { return op.handler(s, c) })
		s.get(r, path, func(c *gin.Context) error {
			allowEverybody(c.Writer.Header())
			return answered(c)
		})
	}
}

// isAPI reports whether a request is to the API.
func isAPI(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, apiRoot+"/") }

// allowEverybody lets scripts of any site read an answer. Nothing here depends on
// who is signed in where: there is nobody to sign in.
func allowEverybody(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "ETag, Link, Retry-After")
}

// preflight answers a browser that asks if it may ask.
func preflight(h http.Header) {
	allowEverybody(h)
	h.Set("Access-Control-Allow-Methods", "GET, HEAD")
	h.Set("Access-Control-Allow-Headers", "If-None-Match")
	h.Set("Access-Control-Max-Age", "86400")
}

// openAPIOperation answers /api/v1/openapi.json.
func (s *Server) openAPIOperation(*gin.Context) (*response, error) {
	return asJSON(openAPI(operations()), anHour)
}

// openAPI describes operations as OpenAPI 3.1 does.
func openAPI(ops []operation) map[string]any {
	doc := describer{schemas: map[string]any{}}
	problemRef := doc.of(reflect.TypeFor[problem]())
	refused := func(text string) map[string]any {
		return map[string]any{"description": text, "content": map[string]any{"application/problem+json": map[string]any{"schema": problemRef}}}
	}
	paths := map[string]any{}
	for _, op := range ops {
		params := []any{}
		for _, p := range op.params {
			value := map[string]any{"type": "string"}
			switch {
			case p.integer:
				value = map[string]any{"type": "integer", "minimum": p.least, "maximum": p.most, "default": p.preset}
			case p.enum != nil:
				value["enum"] = p.enum
			}
			one := map[string]any{"name": p.name, "in": "query", "description": p.doc, "schema": value}
			if strings.Contains(op.path, "{"+p.name+"}") {
				one["in"], one["required"] = "path", true
			}
			params = append(params, one)
		}
		content := map[string]any{"application/json": map[string]any{"schema": doc.of(reflect.TypeOf(op.result))}}
		if op.kind != "" {
			content[op.kind] = map[string]any{"schema": map[string]any{"type": "string"}}
		}
		responses := map[string]any{
			"200": map[string]any{"description": op.summary, "content": content},
			"304": map[string]any{"description": "what If-None-Match names is still so"},
			"429": refused("too many requests from one network"),
		}
		for code, text := range op.errors {
			responses[fmt.Sprint(code)] = refused(text)
		}
		paths[apiRoot+op.path] = map[string]any{"get": map[string]any{
			"operationId": op.id, "summary": op.summary, "parameters": params, "responses": responses,
		}}
	}
	return map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "Mirror network", "version": "1",
			"description": "What is known of a mirror network. Nothing needs a key. Private mirrors, subnets and e-mail addresses are in no answer.",
		},
		"paths":      paths,
		"components": map[string]any{"schemas": doc.schemas},
	}
}

// A describer writes JSON schemas of Go types as encoding/json writes their values.
type describer struct{ schemas map[string]any }

var (
	typeTime    = reflect.TypeFor[time.Time]()
	typeText    = reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()
	typeMarshal = reflect.TypeFor[json.Marshaler]()
)

// of returns the schema of a type: a reference for a struct that has a name.
func (d describer) of(t reflect.Type) map[string]any {
	switch {
	case t == typeTime:
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return map[string]any{"anyOf": []any{d.of(t.Elem()), map[string]any{"type": "null"}}}
	case t.Implements(typeMarshal):
		panic(fmt.Sprintf("mirrorlist: %s writes itself: describe it", t))
	case t.Implements(typeText):
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice, reflect.Array:
		return map[string]any{"type": "array", "items": d.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": d.of(t.Elem())}
	case reflect.Interface:
		return map[string]any{}
	case reflect.Struct:
		name := schemaName(t)
		if _, ok := d.schemas[name]; !ok {
			d.schemas[name] = map[string]any{} // it may contain itself
			d.schemas[name] = d.object(t)
		}
		return map[string]any{"$ref": "#/components/schemas/" + name}
	}
	panic(fmt.Sprintf("mirrorlist: %s cannot be described", t))
}

// schemaName is what a type is called: apiMirror is Mirror to others.
func schemaName(t reflect.Type) string {
	name := strings.TrimPrefix(t.Name(), "api")
	if name == "" {
		panic(fmt.Sprintf("mirrorlist: %s has no name to describe it under", t))
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

func (d describer) object(t reflect.Type) map[string]any {
	fields, required := map[string]any{}, []string{}
	d.fields(t, fields, &required)
	slices.Sort(required)
	return map[string]any{"type": "object", "properties": fields, "required": required, "additionalProperties": false}
}

func (d describer) fields(t reflect.Type, into map[string]any, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			d.fields(f.Type, into, required)
			continue
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		if tag == "" {
			tag = f.Name
		}
		value := d.of(f.Type)
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		if optional && f.Type.Kind() == reflect.Pointer {
			value = d.of(f.Type.Elem()) // never null: it is left out
		}
		if doc := f.Tag.Get("doc"); doc != "" {
			value = maps.Clone(value)
			value["description"] = doc
		}
		into[tag] = value
		if !optional {
			*required = append(*required, tag)
		}
	}
}
