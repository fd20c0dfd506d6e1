// Package strictyaml reads YAML that people write. [Unmarshal] is for settings,
// where a key that nobody knows is a mistake and is refused; [Parse] is for
// files that other programs read too, where every mistake is reported with its
// line and as much as possible is read regardless. It never reads more than
// [MaxSize] bytes, and never interprets what it reads.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"gopkg.in/yaml.v3"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 1 << 20

// ErrTooLarge is wrapped by the errors about files of more than MaxSize bytes.
var ErrTooLarge = fmt.Errorf("larger than %d KiB", MaxSize>>10)

// An Error is what is wrong with settings. It prints one line a fault, each
// beginning with the file and its line.
type Error struct {
	File   string
	Faults []Fault
}

func (e *Error) Error() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
		b.WriteString(f.Text)
		if f.Remedy != "" {
			b.WriteString("; ")
			b.WriteString(f.Remedy)
		}
	}
	return b.String()
}

var errNotRegular = errors.New("not a regular file")

// ReadFile reads the regular file at path, of at most MaxSize bytes. Whatever
// else stands there is refused with an [fs.PathError], and never waited for.
func ReadFile(path string) ([]byte, error) {
	// Opened in this way, a pipe does not wait for its writer. What was opened is
	// asked, for what stands at path may be replaced at any time.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errNotRegular}
	}
	// One byte more than the limit tells a file that is too large from one that
	// just fits.
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%s: %w", path, ErrTooLarge)
	}
	return data, nil
}

// Load reads the settings file at path into v, as Unmarshal does.
func Load(path string, v any) error {
	data, err := ReadFile(path)
	if err != nil {
		return err
	}
	return Unmarshal(path, data, v)
}

// Unmarshal decodes the one document in data into v, a pointer to a struct.
// Keys that v has no field for, repeated keys, and a second document are
// refused. An empty document leaves v as it is: every setting has its default.
// The error is an *Error, whose lines begin with file.
func Unmarshal(file string, data []byte, v any) error {
	root, faults := Parse(data)
	if root == nil && isEmpty(faults) {
		return nil
	}
	if len(faults) > 0 {
		return &Error{file, faults}
	}
	// The node cannot be decoded with KnownFields, only text can.
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	err := dec.Decode(v)
	if err == nil {
		return nil
	}
	var typeErr *yaml.TypeError
	if !errors.As(err, &typeErr) {
		return &Error{file, []Fault{syntaxFault(data, err)}}
	}
	keys := map[string][]string{}
	collectKeys(reflect.TypeOf(v), keys)
	for _, text := range typeErr.Errors {
		faults = append(faults, typeFault(text, keys))
	}
	return &Error{file, faults}
}

var (
	atLine       = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)
	unknownField = regexp.MustCompile(`^field (.*?) not found in type (.+)$`)
	wrongType    = regexp.MustCompile("(?s)^cannot unmarshal !!(\\w+)(?: `(.*)`)? into (.+)$")
)

// typeFault says what yaml.v3 says about a value that does not fit, in words of
// the person who wrote it. keys holds the keys of each struct type, by name.
func typeFault(text string, keys map[string][]string) Fault {
	line := 0
	if m := atLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	if m := unknownField.FindStringSubmatch(text); m != nil {
		known := keys[m[2]]
		if near, ok := Nearest(m[1], known); ok {
			return Fault{Line: line, Text: fmt.Sprintf("unknown key %q", m[1]), Remedy: "write " + near}
		}
		return Fault{Line: line, Text: fmt.Sprintf("unknown key %q", m[1]), Remedy: "known here: " + strings.Join(known, ", ")}
	}
	if m := wrongType.FindStringSubmatch(text); m != nil {
		what := strconv.Quote(strings.TrimSuffix(m[2], "..."))
		switch m[1] {
		case "map":
			what = "a group of keys"
		case "seq":
			what = "a list"
		}
		want, example := describe(m[3])
		return Fault{Line: line, Text: what + " is not " + want, Remedy: "write " + example}
	}
	return Fault{Line: line, Text: text, Remedy: "correct the value"}
}

// describe names the values of a Go type, with an example.
func describe(goType string) (want, example string) {
	switch {
	case goType == "time.Duration":
		return "a duration", "a number with its unit, such as 15m or 12h"
	case goType == "bool":
		return "a yes or no", "true or false"
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "a whole number", "digits only"
	case strings.HasPrefix(goType, "float"):
		return "a number", "digits, such as 1.5"
	case goType == "string":
		return "a text", "one value"
	case strings.HasPrefix(goType, "[]"):
		return "a list", "one item a line, each behind a dash"
	}
	return "a group of keys", "one key a line, indented below this one"
}

// collectKeys notes the YAML keys of every struct reachable from t, by the name
// that yaml.v3 gives the type in its errors.
func collectKeys(t reflect.Type, keys map[string][]string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		collectKeys(t.Elem(), keys)
	case reflect.Struct:
		collectFields(t, t.String(), keys)
	}
}

func collectFields(t reflect.Type, owner string, keys map[string][]string) {
	if _, seen := keys[owner]; seen && owner == t.String() {
		return
	}
	if keys[owner] == nil {
		keys[owner] = []string{}
	}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || name == "-":
			continue
		case strings.Contains(options, "inline") && f.Type.Kind() == reflect.Struct:
			collectFields(f.Type, owner, keys)
			continue
		case name == "":
			name = strings.ToLower(f.Name)
		}
		keys[owner] = append(keys[owner], name)
		collectKeys(f.Type, keys)
	}
}
