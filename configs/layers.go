package configs

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

const envPrefix = "ESPALIER_"

// readDocument checks the text of a configuration file. It returns nil where
// there is nothing to go on with.
func readDocument(src *source, text []byte) (*node, Problems) {
	w := &walker{src: src}
	body, err := parse(text)
	if err != nil {
		e := err.(*syntaxError)
		w.problem(e.line, e.col, "", "%s", e.message)
		return nil, w.problems
	}
	t := reflect.TypeFor[Config]()
	if body == nil {
		return w.node(section, 1, 1), nil
	}
	if _, ok := pairsOf(body); !ok {
		line, col := position(body)
		w.problem(line, col, "", "found %s, wanted keys such as proxy: or log:", found("", body))
		return nil, w.problems
	}
	n := w.walk(body, t, "", 1, 1)
	return n, w.problems
}

// readEnvironment reads the ESPALIER_ variables of environ, "NAME=value" each,
// into one layer each. A section comes before what is in it.
func readEnvironment(environ []string) (layers []*node, problems Problems) {
	environ = slices.Clone(environ)
	slices.SortStableFunc(environ, func(a, b string) int {
		a, _, _ = strings.Cut(a, "=")
		b, _, _ = strings.Cut(b, "=")
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	var names []string
	byName := map[string]knownKey{}
	for _, k := range knownKeys {
		names = append(names, k.env())
		byName[k.env()] = k
	}
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		w := &walker{src: &source{layerEnvironment, name}}
		k, ok := byName[name]
		switch {
		case ok:
			if n := w.text(k.t, k.path, text); n != nil {
				layers = append(layers, w.nest(strings.Split(k.path, "."), n))
			}
		case isServiceLink(name, text):
		default:
			hint := ""
			if meant := nearest(name, names); meant != "" {
				hint = "; did you mean " + meant + "?"
			}
			w.problem(0, 0, "", "unknown variable%s (allowed: %s and the key in capitals, with _ for each dot)", hint, envPrefix)
		}
		problems = append(problems, w.problems...)
	}
	return layers, problems
}

var serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// isServiceLink tells the variables that Kubernetes sets for a service whose
// name begins with espalier: ESPALIER_SERVICE_HOST, ESPALIER_PORT=tcp://…. They
// are not meant for us.
func isServiceLink(name, text string) bool {
	return serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(text, "://")
}

// readFlags reads the values of --set, "key=value" each, into one layer each.
func readFlags(set []string) (layers []*node, problems Problems) {
	for _, entry := range set {
		key, text, ok := strings.Cut(entry, "=")
		key = strings.TrimSpace(key)
		w := &walker{src: &source{layerFlag, key}}
		path, t, err := flagKey(reflect.TypeFor[Config](), key)
		switch {
		case !ok:
			w.problem(0, 0, key, "has no value (wanted: --set key=value)")
		case err != nil:
			w.problem(0, 0, key, "%s", err)
		default:
			if n := w.text(t, key, text); n != nil {
				layers = append(layers, w.nest(path, n))
			}
		}
		problems = append(problems, w.problems...)
	}
	return layers, problems
}

// flagKey splits the path of a key into names. Behind a section of names, one
// name is taken up to the next dot where it has keys of its own, or else all
// that is left.
func flagKey(t reflect.Type, key string) (path []string, _ reflect.Type, _ error) {
	at := ""
	for rest := key; ; {
		name, tail, more := strings.Cut(rest, ".")
		switch {
		case isText(t):
			return nil, nil, fmt.Errorf("%s is a single value", at)
		case t.Kind() == reflect.Struct:
			child := fieldType(t, name)
			if child == nil {
				if base, _, ok := strings.Cut(name, "["); ok && fieldType(t, base) != nil {
					return nil, nil, fmt.Errorf("a flag sets a list as a whole: --set %s=…", join(at, base))
				}
				return nil, nil, fmt.Errorf("%s", unknownKey(t, at, name))
			}
			t = child
		case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct:
			t = t.Elem()
		case t.Kind() == reflect.Map:
			name, tail, more = rest, "", false
			t = t.Elem()
		default:
			return nil, nil, fmt.Errorf("%s has no keys below it", at)
		}
		path, at = append(path, name), join(at, name)
		if !more {
			return path, t, nil
		}
		rest = tail
	}
}

// text reads a value of the environment or of a flag. Texts stand for
// themselves; a list may be written a,b,c; anything else is YAML in one line.
func (w *walker) text(t reflect.Type, key, text string) *node {
	trimmed := strings.TrimSpace(text)
	fail := func(err error) *node {
		w.problem(0, 0, key, "%s", err)
		return nil
	}
	flow := strings.HasPrefix(trimmed, "[") && strings.HasSuffix(trimmed, "]")
	switch {
	case isText(t):
		v, err := parseText(t, trimmed)
		if err != nil {
			return fail(err)
		}
		n := w.node(scalar, 0, 0)
		n.value = v
		return n
	case t.Kind() == reflect.String:
		if err := checkText([]byte(text)); err != nil {
			return fail(err)
		}
		n := w.node(scalar, 0, 0)
		n.value = text
		return n
	case t.Kind() == reflect.Slice && trimmed == "":
		return w.node(list, 0, 0)
	case t.Kind() == reflect.Slice && kindOf(t.Elem()) != reflect.Struct && !flow:
		out := w.node(list, 0, 0)
		for i, item := range strings.Split(trimmed, ",") {
			child := w.text(t.Elem(), fmt.Sprintf("%s[%d]", key, i), strings.TrimSpace(item))
			if child == nil {
				child = w.zero(t.Elem(), 0, 0)
			}
			out.items = append(out.items, child)
		}
		return out
	}
	body, err := parse([]byte(text))
	if err != nil {
		return fail(err)
	}
	return w.walk(body, t, key, 0, 0)
}

// nest puts n into the sections that path names.
func (w *walker) nest(path []string, n *node) *node {
	for _, name := range slices.Backward(path) {
		outer := w.node(section, 0, 0)
		outer.set(name, n)
		n = outer
	}
	return n
}
