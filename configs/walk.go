package configs

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

var (
	durationType    = reflect.TypeFor[time.Duration]()
	unmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// A walker checks YAML against a Go type whose fields have koanf tags, and
// collects what is wrong.
type walker struct {
	src      *source
	problems Problems
}

func (w *walker) problem(line, col int, key, format string, args ...any) {
	p := Problem{File: w.src.file(), Key: key, Message: fmt.Sprintf(format, args...)}
	if w.inFile() {
		p.Line, p.Column = line, col
	}
	w.problems = append(w.problems, p)
}

// inFile reports whether the source has positions worth telling.
func (w *walker) inFile() bool { return w.src.layer <= layerFile }

func (w *walker) node(k kind, line, col int) *node {
	n := &node{kind: k, src: w.src}
	if w.inFile() {
		n.line, n.col = line, col
	}
	return n
}

// zero stands for a value that could not be read, so that the elements behind
// it keep their index.
func (w *walker) zero(t reflect.Type, line, col int) *node {
	k := scalar
	switch kindOf(t) {
	case reflect.Struct, reflect.Map:
		k = section
	case reflect.Slice:
		k = list
	}
	n := w.node(k, line, col)
	if k == scalar {
		n.value = reflect.Zero(t).Interface()
	}
	return n
}

// walk checks n against t. keyLine and keyCol are those of the key, or of an
// element of a list. A section stands where its key does, anything else where
// the value begins. It returns nil where n is nothing like a t.
func (w *walker) walk(n ast.Node, t reflect.Type, key string, keyLine, keyCol int) *node {
	line, col := keyLine, keyCol
	if n == nil || n.Type() == ast.NullType {
		w.problem(line, col, key, "has no value (wanted: %s, or no such line)", wanted(t))
		return nil
	}
	if !block(n) {
		line, col = position(n)
	}
	switch kindOf(t) {
	case reflect.Struct, reflect.Map:
		pairs, ok := pairsOf(n)
		if !ok {
			w.wrongType(n, t, key, line, col)
			return nil
		}
		return w.section(pairs, t, key, keyLine, keyCol)
	case reflect.Slice:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			w.wrongType(n, t, key, line, col)
			return nil
		}
		out := w.node(list, line, col)
		for i, item := range seq.Values {
			line, col := position(item)
			if item.Type() == ast.NullType && i < len(seq.Entries) && seq.Entries[i].Start != nil {
				// Nothing stands there but the dash.
				at := seq.Entries[i].Start.Position
				line, col = at.Line, at.Column
			}
			child := w.walk(item, t.Elem(), fmt.Sprintf("%s[%d]", key, i), line, col)
			if child == nil {
				child = w.zero(t.Elem(), line, col)
			}
			out.items = append(out.items, child)
		}
		return out
	}
	return w.scalar(n, t, key, line, col)
}

// kindOf is t.Kind, with types that parse themselves counted as text.
func kindOf(t reflect.Type) reflect.Kind {
	if reflect.PointerTo(t).Implements(unmarshalerType) {
		return reflect.String
	}
	return t.Kind()
}

func (w *walker) section(pairs []*ast.MappingValueNode, t reflect.Type, key string, line, col int) *node {
	out := w.node(section, line, col)
	first := map[string]int{}
	for _, pair := range pairs {
		keyLine, keyCol := position(pair.Key)
		name, ok := keyText(pair.Key)
		if !ok {
			w.problem(keyLine, keyCol, key, "a key is no plain text here")
			continue
		}
		path := join(key, name)
		if at, dup := first[name]; dup {
			if w.inFile() {
				w.problem(keyLine, keyCol, path, "stands twice (first at line %d)", at)
			} else {
				w.problem(keyLine, keyCol, path, "stands twice")
			}
			continue
		}
		first[name] = keyLine
		child := t // of a map: its element
		if t.Kind() == reflect.Struct {
			if child = fieldType(t, name); child == nil {
				w.problem(keyLine, keyCol, path, "%s", unknownKey(t, key, name))
				continue
			}
		} else {
			child = t.Elem()
		}
		n := w.walk(pair.Value, child, path, keyLine, keyCol)
		if n == nil && t.Kind() == reflect.Map {
			n = w.zero(child, keyLine, keyCol)
		}
		if n != nil {
			out.set(name, n)
		}
	}
	return out
}

func (w *walker) scalar(n ast.Node, t reflect.Type, key string, line, col int) *node {
	text, ok := scalarText(n)
	if !ok {
		w.wrongType(n, t, key, line, col)
		return nil
	}
	out := w.node(scalar, line, col)
	if isText(t) {
		v, err := parseText(t, text)
		if err != nil {
			w.problem(line, col, key, "%s", err)
			return nil
		}
		out.value = v
		return out
	}
	_, quoted := n.(*ast.StringNode)
	if _, literal := n.(*ast.LiteralNode); literal {
		quoted = true
	}
	v := reflect.New(t).Elem()
	switch {
	case t.Kind() == reflect.String && quoted:
		v.SetString(text)
	case t.Kind() == reflect.Bool && n.Type() == ast.BoolType:
		v.SetBool(n.(*ast.BoolNode).Value)
	case v.CanInt() && n.Type() == ast.IntegerType:
		i, err := integer(n)
		if err != nil || v.OverflowInt(i) {
			w.problem(line, col, key, "%s is out of range", text)
			return nil
		}
		v.SetInt(i)
	case v.CanUint() && n.Type() == ast.IntegerType:
		i, err := integer(n)
		if err != nil || i < 0 || v.OverflowUint(uint64(i)) {
			w.problem(line, col, key, "%s is out of range (allowed: 0 to %d)", text, uint64(1)<<t.Bits()-1)
			return nil
		}
		v.SetUint(uint64(i))
	default:
		w.wrongType(n, t, key, line, col)
		return nil
	}
	out.value = v.Interface()
	return out
}

// integer is the value of an IntegerNode as the parser has read it, in whatever
// base.
func integer(n ast.Node) (int64, error) {
	return strconv.ParseInt(fmt.Sprint(n.(*ast.IntegerNode).Value), 10, 64)
}

func (w *walker) wrongType(n ast.Node, t reflect.Type, key string, line, col int) {
	w.problem(line, col, key, "found %s, wanted %s%s", found(key, n), wanted(t), suggestion(key, n, t))
}

// pairsOf returns the keys and values of a section.
func pairsOf(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch v := n.(type) {
	case *ast.MappingNode:
		return v.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{v}, true
	}
	return nil, false
}

// keyText returns the text of a key; a number or a word such as true counts as
// its text.
func keyText(n ast.Node) (string, bool) {
	if v, ok := n.(*ast.MappingKeyNode); ok {
		n = v.Value
	}
	if _, ok := n.(*ast.NullNode); ok && n.GetToken() != nil {
		return n.GetToken().Value, true
	}
	return scalarText(n)
}

// scalarText returns the text of a scalar as it was written, quotes resolved.
func scalarText(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return strings.TrimSpace(n.GetToken().Value), true
	}
	return "", false
}

// join puts a name behind the path of its section.
func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}
