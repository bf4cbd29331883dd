// Package options reads YAML strictly. It is used for the appliance's
// configuration, for the options of each driver, and for policies.
//
// Strict means: an unknown key, a key given twice, a wrong type, a duration
// without a unit are errors, each with file, line, column and the nearest right
// name; all of them are reported at once. Anchors, aliases, merge keys and tags
// are refused (a few lines of them can stand for gigabytes), and size and depth
// are bounded.
package options

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Limits on what Parse takes.
const (
	MaxBytes = 4 << 20
	MaxDepth = 48
)

// Error is one thing wrong in a file.
type Error struct {
	File         string
	Line, Column int    // from 1; 0 = not known
	Path         string // "lanes[0].scanner.port"
	Msg          string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": ")
	if e.Path != "" {
		b.WriteString(e.Path)
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

type kind uint8

const (
	kindNull kind = iota
	kindScalar
	kindList
	kindMap
)

func (k kind) String() string {
	return [...]string{"nothing", "a single value", "a list", "a mapping"}[k]
}

// Node is a piece of a YAML file with its position. The zero Node is absent.
type Node struct {
	v *value
}

type value struct {
	file      string
	line, col int
	path      string
	kind      kind
	text      string // of a scalar
	quoted    bool   // it was written as a string, whatever it looks like
	keys      []key
	vals      []*value
}

type key struct {
	name      string
	line, col int
}

// Parse reads one YAML document. file is used in errors only.
func Parse(file string, src []byte) (Node, error) {
	if len(src) > MaxBytes {
		return Node{}, &Error{File: file, Msg: fmt.Sprintf("the file has %d bytes, more than the %d that are read", len(src), MaxBytes)}
	}
	if line := tooDeep(src); line > 0 {
		return Node{}, &Error{File: file, Line: line, Column: 1, Msg: fmt.Sprintf("nested more than %d deep", MaxDepth)}
	}
	f, err := parser.ParseBytes(src, 0)
	if err != nil {
		var syn *yaml.SyntaxError
		if errors.As(err, &syn) && syn.GetToken() != nil && syn.GetToken().Position != nil {
			p := syn.GetToken().Position
			return Node{}, &Error{File: file, Line: p.Line, Column: p.Column, Msg: syn.GetMessage()}
		}
		return Node{}, &Error{File: file, Msg: err.Error()}
	}
	var body ast.Node
	for _, d := range f.Docs {
		if d == nil || d.Body == nil {
			continue
		}
		if body != nil {
			p := d.Body.GetToken().Position
			return Node{}, &Error{File: file, Line: p.Line, Column: p.Column, Msg: "a second document in one file"}
		}
		body = d.Body
	}
	if body == nil {
		return Node{v: &value{file: file, line: 1, col: 1, kind: kindMap}}, nil
	}
	v, err := convert(file, "", body, 0)
	if err != nil {
		return Node{}, err
	}
	return Node{v: v}, nil
}

// tooDeep returns the first line whose nesting the parser should not be asked
// to follow; it recurses. The count is rough: brackets inside strings count too.
func tooDeep(src []byte) int {
	line, flow, indicators, lead := 1, 0, 0, true
	for i, c := range src {
		switch c {
		case '\n':
			line++
			lead, indicators = true, 0
			continue
		case '[', '{':
			flow++
		case ']', '}':
			flow = max(0, flow-1)
		}
		if lead && (c == '-' || c == '?') && i+1 < len(src) && (src[i+1] == ' ' || src[i+1] == '\t') {
			indicators++
		} else if c != ' ' && c != '\t' {
			lead = false
		}
		if flow > 4*MaxDepth || indicators > MaxDepth {
			return line
		}
	}
	return 0
}

func convert(file, path string, n ast.Node, depth int) (*value, error) {
	v := &value{file: file, path: path}
	if t := n.GetToken(); t != nil && t.Position != nil {
		v.line, v.col = t.Position.Line, t.Position.Column
	}
	refuse := func(what string) (*value, error) {
		return nil, &Error{File: file, Line: v.line, Column: v.col, Path: path, Msg: what}
	}
	if depth > MaxDepth {
		return refuse(fmt.Sprintf("nested more than %d deep", MaxDepth))
	}
	switch n := n.(type) {
	case *ast.NullNode:
		v.kind = kindNull
	case *ast.StringNode:
		v.kind, v.text, v.quoted = kindScalar, n.Value, true
		// An unquoted word is a string too, but may be meant as a duration or
		// an enumeration: only what stands in quotes is a string for sure.
		if t := n.GetToken(); t != nil && t.Type.String() == "String" {
			v.quoted = false
		}
	case *ast.LiteralNode:
		v.kind, v.text, v.quoted = kindScalar, n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		v.kind, v.text = kindScalar, n.GetToken().Value
	case *ast.SequenceNode:
		v.kind = kindList
		for i, item := range n.Values {
			c, err := convert(file, fmt.Sprintf("%s[%d]", path, i), item, depth+1)
			if err != nil {
				return nil, err
			}
			v.vals = append(v.vals, c)
		}
	case *ast.MappingNode:
		v.kind = kindMap
		return v, convertPairs(v, n.Values, depth)
	case *ast.MappingValueNode:
		v.kind = kindMap
		return v, convertPairs(v, []*ast.MappingValueNode{n}, depth)
	case *ast.AnchorNode, *ast.AliasNode:
		return refuse("anchors and aliases are not taken here; write the value out")
	case *ast.TagNode:
		return refuse("tags are not taken here")
	default:
		return refuse(fmt.Sprintf("cannot use %s here", n.Type()))
	}
	return v, nil
}

func convertPairs(v *value, pairs []*ast.MappingValueNode, depth int) error {
	if len(pairs) > 0 {
		if t := pairs[0].Key.GetToken(); t != nil && t.Position != nil {
			v.line, v.col = t.Position.Line, t.Position.Column
		}
	}
	for _, p := range pairs {
		kt := p.Key.GetToken()
		k := key{line: kt.Position.Line, col: kt.Position.Column}
		at := &Error{File: v.file, Line: k.line, Column: k.col, Path: v.path}
		switch kn := p.Key.(type) {
		case *ast.StringNode:
			k.name = kn.Value
		case *ast.IntegerNode, *ast.BoolNode, *ast.FloatNode, *ast.NullNode:
			k.name = kt.Value
		case *ast.MergeKeyNode:
			at.Msg = "merge keys are not taken here; write the value out"
			return at
		default:
			at.Msg = "a key must be a plain word"
			return at
		}
		for _, have := range v.keys {
			if have.name == k.name {
				at.Msg = fmt.Sprintf("key %q is given twice, first in line %d", k.name, have.line)
				return at
			}
		}
		path := k.name
		if v.path != "" {
			path = v.path + "." + k.name
		}
		c, err := convert(v.file, path, p.Value, depth+1)
		if err != nil {
			return err
		}
		if c.kind == kindNull {
			c.line, c.col = k.line, k.col
		}
		v.keys = append(v.keys, k)
		v.vals = append(v.vals, c)
	}
	return nil
}

// IsZero reports whether the node is absent or null.
func (n Node) IsZero() bool { return n.v == nil || n.v.kind == kindNull }

// Line is the node's line, from 1; 0 when absent.
func (n Node) Line() int {
	if n.v == nil {
		return 0
	}
	return n.v.line
}

// File is the name the node was parsed under.
func (n Node) File() string {
	if n.v == nil {
		return ""
	}
	return n.v.file
}

// Path is where the node stands in its file: "lanes[0].scanner".
func (n Node) Path() string {
	if n.v == nil {
		return ""
	}
	return n.v.path
}

// Text is a scalar's text, "" for anything else.
func (n Node) Text() string {
	if n.v == nil || n.v.kind != kindScalar {
		return ""
	}
	return n.v.text
}

// IsMap, IsList and IsScalar tell what the node is.
func (n Node) IsMap() bool    { return n.v != nil && n.v.kind == kindMap }
func (n Node) IsList() bool   { return n.v != nil && n.v.kind == kindList }
func (n Node) IsScalar() bool { return n.v != nil && n.v.kind == kindScalar }

// Keys returns a mapping's keys in the order of the file.
func (n Node) Keys() []string {
	if n.v == nil || n.v.kind != kindMap {
		return nil
	}
	out := make([]string, len(n.v.keys))
	for i, k := range n.v.keys {
		out[i] = k.name
	}
	return out
}

// Items returns a list's items.
func (n Node) Items() []Node {
	if n.v == nil || n.v.kind != kindList {
		return nil
	}
	out := make([]Node, len(n.v.vals))
	for i, v := range n.v.vals {
		out[i] = Node{v}
	}
	return out
}

// At returns the value of a key. Where there is none, the result is absent but
// keeps the mapping's position, so that its Errorf still points somewhere.
func (n Node) At(name string) Node {
	if n.v == nil {
		return Node{}
	}
	if n.v.kind == kindMap {
		for i, k := range n.v.keys {
			if k.name == name {
				return Node{n.v.vals[i]}
			}
		}
	}
	path := name
	if n.v.path != "" {
		path = n.v.path + "." + name
	}
	return Node{&value{file: n.v.file, line: n.v.line, col: n.v.col, path: path}}
}

// Without returns a mapping less the named keys: what is left for a driver
// after its caller has taken "driver".
func (n Node) Without(names ...string) Node {
	if n.v == nil || n.v.kind != kindMap {
		return n
	}
	c := *n.v
	c.keys, c.vals = nil, nil
	for i, k := range n.v.keys {
		if !slices.Contains(names, k.name) {
			c.keys = append(c.keys, k)
			c.vals = append(c.vals, n.v.vals[i])
		}
	}
	return Node{&c}
}

// Errorf makes an error at the node's position.
func (n Node) Errorf(format string, args ...any) error {
	e := &Error{Msg: fmt.Sprintf(format, args...)}
	if n.v != nil {
		e.File, e.Line, e.Column, e.Path = n.v.file, n.v.line, n.v.col, n.v.path
	}
	return e
}

// Decode fills v, a pointer, from the node. Struct fields are matched by their
// `yaml:"name"` tag and keep the value they had when the key is absent or null.
// A Node field takes its part undecoded. The error joins every *Error found.
func (n Node) Decode(v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return fmt.Errorf("options: Decode into %T, want a pointer", v)
	}
	var d decoder
	if n.v != nil {
		d.decode(n.v, rv.Elem())
	}
	return errors.Join(d.errs...)
}

type decoder struct{ errs []error }

func (d *decoder) fail(v *value, format string, args ...any) {
	d.errs = append(d.errs, Node{v}.Errorf(format, args...))
}

var (
	nodeType     = reflect.TypeFor[Node]()
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (d *decoder) decode(v *value, out reflect.Value) {
	if out.Type() == nodeType {
		out.Set(reflect.ValueOf(Node{v}))
		return
	}
	if v.kind == kindNull {
		return
	}
	if out.Kind() == reflect.Pointer {
		p := reflect.New(out.Type().Elem())
		if !out.IsNil() {
			p.Elem().Set(out.Elem())
		}
		d.decode(v, p.Elem())
		out.Set(p)
		return
	}
	if out.CanAddr() && out.Addr().Type().Implements(textType) {
		if v.kind != kindScalar {
			d.fail(v, "want a single value, not %s", v.kind)
			return
		}
		if err := out.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(v.text)); err != nil {
			d.fail(v, "%v", err)
		}
		return
	}
	switch out.Kind() {
	case reflect.Struct:
		d.decodeStruct(v, out)
	case reflect.Map:
		d.decodeMap(v, out)
	case reflect.Slice:
		d.decodeSlice(v, out)
	default:
		if v.kind != kindScalar {
			d.fail(v, "want %s, not %s", wanted(out.Type()), v.kind)
			return
		}
		d.decodeScalar(v, out)
	}
}

// wanted names a type as somebody would who writes YAML.
func wanted(t reflect.Type) string {
	switch {
	case t == durationType:
		return `a duration with a unit ("500ms", "8s", "2h")`
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "a whole number"
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		return "a mapping"
	}
	return "text"
}

func (d *decoder) decodeScalar(v *value, out reflect.Value) {
	bad := func() { d.fail(v, "want %s, not %q", wanted(out.Type()), v.text) }
	switch {
	case out.Type() == durationType:
		dur, err := time.ParseDuration(v.text)
		if err != nil {
			bad()
			return
		}
		out.SetInt(int64(dur))
	case out.Kind() == reflect.String:
		out.SetString(v.text)
	case out.Kind() == reflect.Bool:
		if v.quoted || (v.text != "true" && v.text != "false") {
			bad()
			return
		}
		out.SetBool(v.text == "true")
	case out.CanInt():
		n, err := strconv.ParseInt(v.text, 0, 64)
		if err != nil || v.quoted {
			bad()
			return
		}
		if out.OverflowInt(n) {
			d.fail(v, "%s is too large", v.text)
			return
		}
		out.SetInt(n)
	case out.CanUint():
		n, err := strconv.ParseUint(v.text, 0, 64)
		if err != nil || v.quoted {
			bad()
			return
		}
		if out.OverflowUint(n) {
			d.fail(v, "%s is too large", v.text)
			return
		}
		out.SetUint(n)
	case out.CanFloat():
		f, err := strconv.ParseFloat(v.text, 64)
		if err != nil || v.quoted || math.IsNaN(f) || math.IsInf(f, 0) {
			bad()
			return
		}
		out.SetFloat(f)
	default:
		d.fail(v, "cannot be set (%s)", out.Type())
	}
}

func (d *decoder) decodeSlice(v *value, out reflect.Value) {
	if v.kind != kindList {
		d.fail(v, "want a list, not %s", v.kind)
		return
	}
	s := reflect.MakeSlice(out.Type(), len(v.vals), len(v.vals))
	for i, c := range v.vals {
		d.decode(c, s.Index(i))
	}
	out.Set(s)
}

func (d *decoder) decodeMap(v *value, out reflect.Value) {
	if v.kind != kindMap {
		d.fail(v, "want a mapping, not %s", v.kind)
		return
	}
	m := reflect.MakeMapWithSize(out.Type(), len(v.keys))
	for i, k := range v.keys {
		kv := reflect.New(out.Type().Key()).Elem()
		d.decode(&value{file: v.file, line: k.line, col: k.col, path: v.vals[i].path, kind: kindScalar, text: k.name}, kv)
		ev := reflect.New(out.Type().Elem()).Elem()
		d.decode(v.vals[i], ev)
		m.SetMapIndex(kv, ev)
	}
	out.Set(m)
}

func (d *decoder) decodeStruct(v *value, out reflect.Value) {
	if v.kind != kindMap {
		d.fail(v, "want a mapping, not %s", v.kind)
		return
	}
	fields := map[string][]int{}
	collect(out.Type(), nil, fields)
	for i, k := range v.keys {
		idx, ok := fields[k.name]
		if !ok {
			at := &value{file: v.file, line: k.line, col: k.col, path: v.path}
			d.fail(at, "unknown key %q%s", k.name, Hint(k.name, names(fields)))
			continue
		}
		d.decode(v.vals[i], out.FieldByIndex(idx))
	}
}

func collect(t reflect.Type, at []int, into map[string][]int) {
	for i := range t.NumField() {
		f := t.Field(i)
		idx := append(slices.Clone(at), i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			collect(f.Type, idx, into)
			continue
		}
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); f.IsExported() && name != "" && name != "-" {
			into[name] = idx
		}
	}
}

func names(m map[string][]int) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// Hint says which of the known names was probably meant: `, did you mean
// "port"?`, or lists the names when there are few, or is empty.
func Hint(got string, known []string) string {
	if near := Nearest(got, known); near != "" {
		return fmt.Sprintf(", did you mean %q?", near)
	}
	if len(known) == 0 || len(known) > 12 {
		return ""
	}
	known = slices.Clone(known)
	slices.Sort(known)
	return " (known here: " + strings.Join(known, ", ") + ")"
}

// Nearest returns the known name with the least edit distance to got, or ""
// when none is near enough to be a slip of the pen.
func Nearest(got string, known []string) string {
	type cand struct {
		name string
		dist int
	}
	var cs []cand
	for _, k := range known {
		dist := editDistance(strings.ToLower(got), strings.ToLower(k))
		if dist <= 1+min(len(got), len(k))/4 {
			cs = append(cs, cand{k, dist})
		}
	}
	if len(cs) == 0 {
		return ""
	}
	return slices.MinFunc(cs, func(a, b cand) int {
		return cmp.Or(cmp.Compare(a.dist, b.dist), cmp.Compare(a.name, b.name))
	}).name
}

// editDistance counts insertions, deletions, substitutions and swaps of
// neighbours (optimal string alignment).
func editDistance(a, b string) int {
	ra, rb := []rune(a), []rune(b)
	prev2 := make([]int, len(rb)+1)
	prev := make([]int, len(rb)+1)
	cur := make([]int, len(rb)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(ra); i++ {
		cur[0] = i
		for j := 1; j <= len(rb); j++ {
			cost := 1
			if ra[i-1] == rb[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && ra[i-1] == rb[j-2] && ra[i-2] == rb[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(rb)]
}

// Any gives the node as JSON-like values: nil, string, bool, float64 or int64,
// []any, map[string]any. Unquoted words that look like numbers or booleans are.
func (n Node) Any() any {
	if n.v == nil {
		return nil
	}
	switch n.v.kind {
	case kindList:
		out := make([]any, len(n.v.vals))
		for i, v := range n.v.vals {
			out[i] = Node{v}.Any()
		}
		return out
	case kindMap:
		out := make(map[string]any, len(n.v.keys))
		for i, k := range n.v.keys {
			out[k.name] = Node{n.v.vals[i]}.Any()
		}
		return out
	case kindScalar:
		if n.v.quoted {
			return n.v.text
		}
		if n.v.text == "true" || n.v.text == "false" {
			return n.v.text == "true"
		}
		if i, err := strconv.ParseInt(n.v.text, 10, 64); err == nil {
			return i
		}
		if f, err := strconv.ParseFloat(n.v.text, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
		return n.v.text
	}
	return nil
}
