package configs

import (
	"slices"
	"strconv"
	"strings"
)

// A layer is one of the four places that a value may come from; a later one
// overrides an earlier.
type layer int

const (
	layerDefault layer = iota
	layerFile
	layerEnvironment
	layerFlag
)

// A source names where a value comes from.
type source struct {
	layer layer
	name  string // the file as given, the variable, the flag's key
}

// file is what Problem.File says of the source.
func (s *source) file() string {
	switch s.layer {
	case layerEnvironment:
		return "environment " + s.name
	case layerFlag:
		return "flag --set " + s.name
	}
	return s.name
}

// A node is a checked value together with where it stands. Exactly one of
// fields, items and value is in use, by kind.
type node struct {
	kind      kind
	src       *source
	line, col int // 0 outside files
	fields    map[string]*node
	items     []*node
	value     any // of the type that the Config has
}

type kind int

const (
	scalar kind = iota
	section
	list
)

func (n *node) set(key string, child *node) {
	if n.fields == nil {
		n.fields = map[string]*node{}
	}
	n.fields[key] = child
}

// plain returns the value without its places, as koanf wants it.
func (n *node) plain() any {
	switch n.kind {
	case section:
		m := make(map[string]any, len(n.fields))
		for key, child := range n.fields {
			m[key] = child.plain()
		}
		return m
	case list:
		l := make([]any, len(n.items))
		for i, child := range n.items {
			l[i] = child.plain()
		}
		return l
	}
	return n.value
}

// overlay returns base with top laid over it, by koanf's rule: sections merge
// by key, anything else is replaced. A merged section stands where the file has
// it.
func overlay(base, top *node) *node {
	if base == nil || base.kind != section || top.kind != section {
		return top
	}
	at := top
	if base.src.layer == layerFile {
		at = base
	}
	merged := &node{kind: section, src: at.src, line: at.line, col: at.col}
	for key, child := range base.fields {
		merged.set(key, child)
	}
	for key, child := range top.fields {
		merged.set(key, overlay(base.fields[key], child))
	}
	return merged
}

// resolve follows the key that text begins with. Names in the configuration may
// hold dots, so at each step the longest name that exists wins. It returns the
// nodes that exist on the way, the root first, and the text behind them.
func resolve(root *node, text string) (path []*node, rest string) {
	path = []*node{root}
	for n, dot := root, false; ; {
		next, length := (*node)(nil), 0
		switch {
		case n.kind == section:
			name := text
			if dot {
				name = strings.TrimPrefix(text, ".")
			}
			skip := len(text) - len(name)
			if dot && skip == 0 {
				return path, text
			}
			for key, child := range n.fields {
				tail, ok := strings.CutPrefix(name, key)
				if ok && skip+len(key) >= length && (tail == "" || strings.HasPrefix(tail, ": ") || tail[0] == '.' || tail[0] == '[') {
					next, length = child, skip+len(key)
				}
			}
		case n.kind == list && strings.HasPrefix(text, "["):
			index, _, _ := strings.Cut(text[1:], "]")
			if i, err := strconv.Atoi(index); err == nil && i >= 0 && i < len(n.items) {
				next, length = n.items[i], len(index)+2
			}
		}
		if next == nil {
			return path, text
		}
		n, text, dot = next, text[length:], true
		path = append(path, n)
	}
}

// problem turns an error text, "key: message", into a Problem at the place of
// the key; where the user has not written it, at what is nearest above it.
func problem(root *node, text string) Problem {
	path, rest := resolve(root, text)
	end := len(text) - len(rest)
	// What is left of the key, such as the name of a missing one.
	if tail, _, ok := strings.Cut(rest, ": "); ok && !strings.ContainsAny(tail, " \"") {
		end += len(tail)
	}
	p := Problem{Key: text[:end], Message: strings.TrimPrefix(text[end:], ": ")}
	at := root
	for _, n := range slices.Backward(path) {
		if n.src.layer != layerDefault {
			at = n
			break
		}
	}
	p.File, p.Line, p.Column = at.src.file(), at.line, at.col
	return p
}
