package schema

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v5"
	"gopkg.in/yaml.v3"

	"meridian/internal/strictyaml"
)

// Schemas holds mirror.schema.json and network.schema.json, which editors and
// the linter check files against. The server does not: it reads more than they
// admit, and six hundred files in a few milliseconds.
//
//go:embed mirror.schema.json network.schema.json
var Schemas embed.FS

// A compiledSchema is a schema and its own text, in which messages are looked up.
type compiledSchema struct {
	*jsonschema.Schema
	text any
}

var (
	mirrorSchema  = sync.OnceValue(func() compiledSchema { return mustCompile("mirror.schema.json") })
	networkSchema = sync.OnceValue(func() compiledSchema { return mustCompile("network.schema.json") })
)

// mustCompile panics when an embedded schema is wrong, which every test of the
// linter would show.
func mustCompile(name string) compiledSchema {
	data, err := Schemas.ReadFile(name)
	if err != nil {
		panic(err)
	}
	var text any
	if err := json.Unmarshal(data, &text); err != nil {
		panic(fmt.Sprintf("schema: %s: %v", name, err))
	}
	return compiledSchema{jsonschema.MustCompileString(name, string(data)), text}
}

// validate reports where the document departs from the schema, except where the
// loader has said something about the same key, which it does better.
func (r *reader) validate(s compiledSchema, root *yaml.Node) {
	nodes := map[string]*yaml.Node{}
	err := s.Validate(plain(root, "", nodes))
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return
	}
	said := map[string]bool{}
	for _, p := range r.list {
		said[p.Path] = true
		if i := strings.IndexByte(p.Path, '['); i >= 0 {
			said[p.Path[:i]] = true
		}
	}
	for _, leaf := range leaves(invalid) {
		for _, p := range s.translate(leaf, nodes) {
			if said[p.Path] {
				continue
			}
			said[p.Path] = true
			r.add(false, p.Line, p.Path, p.Text, p.Remedy)
		}
	}
}

// leaves returns the errors that say something; the others only point to them.
func leaves(e *jsonschema.ValidationError) (all []*jsonschema.ValidationError) {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	// The causes below anyOf contradict each other: "not a number", "not a list".
	if strings.HasSuffix(e.KeywordLocation, "/anyOf") {
		return []*jsonschema.ValidationError{e}
	}
	for _, c := range e.Causes {
		all = append(all, leaves(c)...)
	}
	return all
}

var quoted = regexp.MustCompile(`'([^']*)'`)

// translate says what one error of the validator means, in our words.
func (s compiledSchema) translate(e *jsonschema.ValidationError, nodes map[string]*yaml.Node) []Problem {
	node := nodes[e.InstanceLocation]
	if node == nil {
		return nil
	}
	_, fragment, _ := strings.Cut(e.AbsoluteKeywordLocation, "#")
	i := strings.LastIndexByte(fragment, '/')
	where, keyword := fragment[:max(i, 0)], fragment[i+1:]
	rule, _ := s.lookup(where).(map[string]any)
	path := dotted(e.InstanceLocation)
	one := func(text, remedy string) []Problem {
		if r, ok := rule["x-remedy"].(string); ok {
			remedy = r
		}
		return []Problem{{Line: node.Line, Path: path, Text: text, Remedy: remedy}}
	}
	write := func(rule map[string]any, preset string) string {
		if examples, ok := rule["examples"].([]any); ok && len(examples) > 0 {
			text, _ := json.Marshal(examples[0])
			return "write " + strings.Trim(string(text), `"`)
		}
		return preset
	}
	switch keyword {
	case "additionalProperties":
		return nil // the loader names the nearest key
	case "required":
		var all []Problem
		properties, _ := rule["properties"].(map[string]any)
		for _, m := range quoted.FindAllStringSubmatch(e.Message, -1) {
			about, _ := properties[m[1]].(map[string]any)
			all = append(all, Problem{
				Line: node.Line, Path: join(path, m[1]),
				Text:   m[1] + " is missing",
				Remedy: strings.Replace(write(about, "write "+m[1]+":"), "write ", "write "+m[1]+": ", 1),
			})
		}
		return all
	case "type":
		if rule["type"] == "string" && node.Kind == yaml.ScalarNode {
			value := strictyaml.Clip(node.Value)
			return one(fmt.Sprintf("%s is %s for other software, not a text", value, kind(node)), fmt.Sprintf("write %q with the quotes", value))
		}
		remedy := write(rule, "write another kind of value")
		if node.Kind == yaml.ScalarNode {
			_, notNumber := strconv.ParseFloat(node.Value, 64)
			switch rule["type"] {
			case "array":
				remedy = fmt.Sprintf("write [%s]", strictyaml.Clip(node.Value))
			case "integer", "number":
				if notNumber == nil {
					remedy = fmt.Sprintf("write %s without quotes", strictyaml.Clip(node.Value))
				}
			}
		}
		return one(fmt.Sprintf("%s is %s", quote(node), kind(node)), remedy)
	case "pattern":
		if text, ok := rule["x-problem"].(string); ok {
			return one(quote(node)+": "+text, write(rule, "correct it"))
		}
	}
	return one(quote(node)+" is not what belongs here", write(rule, "correct it"))
}

// kind names the type of a value.
func kind(n *yaml.Node) string {
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a yes or no"
	case "!!map":
		return "a group of keys"
	case "!!seq":
		return "a list"
	case "!!timestamp":
		return "a date"
	case "!!null":
		return "nothing"
	}
	return "a text"
}

// lookup returns the part of the schema's text at a JSON pointer.
func (s compiledSchema) lookup(pointer string) any {
	at := s.text
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		switch v := at.(type) {
		case map[string]any:
			at = v[token]
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(v) {
				return nil
			}
			at = v[i]
		}
	}
	return at
}

// dotted returns a JSON pointer as the path of a problem.
func dotted(pointer string) string {
	var b strings.Builder
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		if _, err := strconv.Atoi(token); err == nil && b.Len() > 0 {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(strictyaml.Clip(token))
	}
	return b.String()
}

// plain returns n as the validator reads it, and notes its nodes by their JSON
// pointers. Keys without a value are left out, as the loader does.
func plain(n *yaml.Node, pointer string, nodes map[string]*yaml.Node) any {
	nodes[pointer] = n
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if v.ShortTag() == "!!null" {
				continue
			}
			token := strings.ReplaceAll(strings.ReplaceAll(k.Value, "~", "~0"), "/", "~1")
			m[k.Value] = plain(v, pointer+"/"+token, nodes)
		}
		return m
	case yaml.SequenceNode:
		all := make([]any, len(n.Content))
		for i, c := range n.Content {
			all[i] = plain(c, pointer+"/"+strconv.Itoa(i), nodes)
		}
		return all
	}
	switch n.ShortTag() {
	case "!!int":
		if v, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			return v
		}
		return 0.5 // some number, but none that a key here takes
	case "!!float":
		if v, err := strconv.ParseFloat(n.Value, 64); err == nil && v-v == 0 {
			return v
		}
		return 0.5
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!null":
		return nil
	}
	return n.Value
}
