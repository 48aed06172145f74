//go:build linux

package scenario

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// A scenario is one hazard: what the client and the origin do, and what must come
// of it. doc_test.go describes the file format.
type scenario struct {
	name    string
	fault   int    // of the list that the first scenarios come from; 0: none
	tunnel  bool   // the client uses CONNECT
	only    string // conditions on the entry, separated by spaces; "": all entries
	bounds  map[string]time.Duration
	setup   map[string]string
	rounds  int // how often the scripts are played
	client  []step
	origin  []step
	want    []step
	because string // why not all entries
}

// A step is a line of a script.
type step struct {
	line  int
	conds []string
	verb  string
	args  []string // words, strings of Go's syntax unquoted
	text  string   // the strings among args, joined
}

var headerKeys = []string{"fault", "kind", "entries", "bounds", "setup", "rounds"}

func load(path string) (*scenario, error) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		return nil, err
	}
	s := &scenario{name: strings.TrimSuffix(filepath.Base(path), ".txtar"), bounds: map[string]time.Duration{}, setup: map[string]string{}, rounds: 1}
	line := 0
	for l := range strings.Lines(string(a.Comment)) {
		line++
		if l = strings.TrimSpace(l); l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		if err := s.header(l); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, line, err)
		}
	}
	for _, f := range a.Files {
		line++ // its marker
		steps, err := parse(string(f.Data), line)
		line += strings.Count(string(f.Data), "\n")
		if err != nil {
			return nil, fmt.Errorf("%s:%w", path, err)
		}
		switch f.Name {
		case "client":
			s.client = steps
		case "origin":
			s.origin = steps
		case "want":
			s.want = steps
		default:
			return nil, fmt.Errorf("%s: unknown section %q (allowed: client, origin, want)", path, f.Name)
		}
	}
	if len(s.client) == 0 || len(s.want) == 0 {
		return nil, fmt.Errorf("%s: missing section client or want", path)
	}
	if s.only != "" && s.because == "" {
		return nil, fmt.Errorf("%s: entries: missing reason in parentheses", path)
	}
	return s, nil
}

var reason = regexp.MustCompile(`^(.*?)\s*\((.*)\)$`)

func (s *scenario) header(l string) error {
	key, value, ok := strings.Cut(l, ":")
	value = strings.TrimSpace(value)
	if !ok || !slices.Contains(headerKeys, key) {
		return fmt.Errorf("unknown key in %q (allowed: %s)", l, strings.Join(headerKeys, ", "))
	}
	var err error
	switch key {
	case "fault":
		s.fault, err = strconv.Atoi(value)
	case "kind":
		if s.tunnel = value == "tunnel"; !s.tunnel && value != "request" {
			err = fmt.Errorf("kind: unknown %q (allowed: request, tunnel)", value)
		}
	case "rounds":
		s.rounds, err = strconv.Atoi(value)
	case "entries":
		if m := reason.FindStringSubmatch(value); m != nil {
			s.only, s.because = m[1], m[2]
		} else {
			s.only = value
		}
	case "bounds":
		for _, f := range strings.Fields(value) {
			name, d, _ := strings.Cut(f, "=")
			if s.bounds[name], err = time.ParseDuration(d); err != nil {
				return fmt.Errorf("bounds: %w", err)
			}
		}
	case "setup":
		for _, f := range strings.Fields(value) {
			name, v, _ := strings.Cut(f, "=")
			s.setup[name] = v
		}
	}
	return err
}

// parse reads the steps of a section that begins behind line.
func parse(text string, line int) ([]step, error) {
	var list []step
	for l := range strings.Lines(text) {
		line++
		trimmed := strings.TrimSpace(l)
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		var st *step
		if l[0] == ' ' || l[0] == '\t' { // it goes on
			if len(list) == 0 {
				return nil, fmt.Errorf("%d: nothing to continue", line)
			}
			st = &list[len(list)-1]
		} else {
			list = append(list, step{line: line})
			st = &list[len(list)-1]
		}
		if err := st.parse(trimmed); err != nil {
			return nil, fmt.Errorf("%d: %w", line, err)
		}
	}
	return list, nil
}

var repeated = regexp.MustCompile(`^(\d+)\*"`)

func (st *step) parse(l string) error {
	for l = strings.TrimSpace(l); l != "" && l[0] != '#'; l = strings.TrimSpace(l) {
		switch m := repeated.FindStringSubmatch(l); {
		case l[0] == '[' && st.verb == "":
			cond, rest, ok := strings.Cut(l[1:], "]")
			if !ok {
				return fmt.Errorf("missing ] in %q", l)
			}
			st.conds = append(st.conds, cond)
			l = rest
		case l[0] == '"', m != nil:
			n := 1
			if m != nil {
				n, _ = strconv.Atoi(m[1])
				l = l[len(m[1])+1:]
			}
			q, err := strconv.QuotedPrefix(l)
			if err != nil {
				return fmt.Errorf("invalid string in %q", l)
			}
			l = l[len(q):]
			s, _ := strconv.Unquote(q)
			s = strings.Repeat(s, n)
			st.args, st.text = append(st.args, s), st.text+s
		default:
			// A word, which may have a string as its value: name="text".
			i := strings.IndexAny(l, " \t\"")
			if i < 0 {
				i = len(l)
			}
			word := l[:i]
			l = l[i:]
			if l != "" && l[0] == '"' {
				q, err := strconv.QuotedPrefix(l)
				if err != nil {
					return fmt.Errorf("invalid string in %q", l)
				}
				l = l[len(q):]
				s, _ := strconv.Unquote(q)
				word += s
			}
			if st.verb == "" {
				st.verb = word
			} else {
				st.args = append(st.args, word)
			}
		}
	}
	return nil
}

// expand replaces ${name} by its value.
func expand(s string, vars map[string]string) string {
	for name, value := range vars {
		s = strings.ReplaceAll(s, "${"+name+"}", value)
	}
	return s
}

// applies reports whether the conditions hold for e: each is the name of an entry
// or of a group, or "!" and such a name; those that name entries to take are
// alternatives.
func applies(e entry, conds []string) bool {
	taken, named := false, false
	for _, c := range conds {
		if name, not := strings.CutPrefix(c, "!"); not {
			if e.is(name) {
				return false
			}
			continue
		}
		named = true
		taken = taken || e.is(c)
	}
	return taken || !named
}
