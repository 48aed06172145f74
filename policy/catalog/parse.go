package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// A ParseError is one mistake in a catalogue file.
type ParseError struct {
	File         string // empty where the data came without a name
	Line, Column int    // from 1; 0 where not known
	Key          string // the key at fault; empty where none is
	Msg          string
}

// Error is "file:line:column: key: message"; what is not known is left out.
func (e *ParseError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ":")
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", e.Line, e.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	return b.String() + e.Msg
}

// Load reads a catalogue file, as `espalier catalog import` writes it. Mistakes
// in it are reported as Parse does, with the file's name in front.
func Load(path string) ([]Row, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseFile(path, data)
}

// Parse reads a catalogue: a YAML list of rows with the keys of Row. It is
// strict: an unknown key, a missing one or a value that is not allowed is a
// mistake. All mistakes are returned, joined, each a *ParseError.
func Parse(data []byte) ([]Row, error) { return ParseFile("", data) }

// ParseFile is Parse of data that was read from the file called name.
func ParseFile(name string, data []byte) ([]Row, error) {
	p := fileParser{name: name}
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		e := &ParseError{File: name, Msg: err.Error()}
		if ye, ok := errors.AsType[yaml.Error](err); ok {
			e.Msg = ye.GetMessage()
			if t := ye.GetToken(); t != nil && t.Position != nil {
				e.Line, e.Column = t.Position.Line, t.Position.Column
			}
		}
		return nil, e
	}
	var bodies []ast.Node
	for _, d := range f.Docs {
		if d.Body != nil && d.Body.Type() != ast.CommentType {
			bodies = append(bodies, d.Body)
		}
	}
	if len(bodies) == 0 {
		return nil, &ParseError{File: name, Msg: "no rows (want a list of rows)"}
	}
	if len(bodies) > 1 {
		p.fail(bodies[1], "", errors.New("a second document (want one list of rows)"))
	}
	var rows []Row
	if seq, ok := bodies[0].(*ast.SequenceNode); !ok {
		p.fail(bodies[0], "", errors.New("want a list of rows"))
	} else if len(seq.Values) == 0 {
		p.fail(seq, "", errors.New("no rows (want a list of rows)"))
	} else {
		for _, v := range seq.Values {
			rows = append(rows, p.row(v))
		}
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return rows, nil
}

type fileParser struct {
	name string
	errs []error
}

// fail notes a mistake at n; a nil err is none.
func (p *fileParser) fail(n ast.Node, key string, err error) {
	if err == nil {
		return
	}
	e := &ParseError{File: p.name, Key: key, Msg: err.Error()}
	if m, ok := n.(ast.MapNode); ok {
		// The token of a block mapping is a colon somewhere in it.
		if it := m.MapRange(); it.Next() {
			n = it.Key()
		}
	}
	if n != nil && n.GetToken() != nil && n.GetToken().Position != nil {
		pos := n.GetToken().Position
		e.Line, e.Column = pos.Line, pos.Column
	}
	p.errs = append(p.errs, e)
}

// fields says how each key of a row is read.
var fields = map[string]func(*fileParser, *Row, string, ast.Node){
	"host": func(p *fileParser, r *Row, key string, n ast.Node) { p.text(key, n, &r.Host, checkHost) },
	"ports": func(p *fileParser, r *Row, key string, n ast.Node) {
		p.list(key, n, func(s string) error {
			port, err := checkPort(s)
			if err == nil {
				r.Ports, err = addUnique(r.Ports, port)
			}
			return err
		})
	},
	"transports": func(p *fileParser, r *Row, key string, n ast.Node) { p.words(key, n, &r.Transports, transports) },
	"systems":    func(p *fileParser, r *Row, key string, n ast.Node) { p.words(key, n, &r.Systems, systemIDs) },
	"service":    func(p *fileParser, r *Row, key string, n ast.Node) { p.text(key, n, &r.Service, checkService) },
	"section":    func(p *fileParser, r *Row, key string, n ast.Node) { p.text(key, n, &r.Section, checkText) },
	"purpose":    func(p *fileParser, r *Row, key string, n ast.Node) { p.text(key, n, &r.Purpose, checkText) },
	"proxy": func(p *fileParser, r *Row, key string, n ast.Node) {
		p.text(key, n, (*string)(&r.Proxy), func(s string) error { return checkWord(s, proxies) })
	},
	"since":   func(p *fileParser, r *Row, key string, n ast.Node) { p.text(key, n, &r.Since, checkText) },
	"until":   func(p *fileParser, r *Row, key string, n ast.Node) { p.text(key, n, &r.Until, checkText) },
	"source":  func(p *fileParser, r *Row, key string, n ast.Node) { p.text(key, n, &r.Source, checkText) },
	"unknown": func(p *fileParser, r *Row, key string, n ast.Node) { p.words(key, n, &r.Unknown, cells) },
	"note":    func(p *fileParser, r *Row, key string, n ast.Node) { p.text(key, n, &r.Note, checkText) },
}

const keys = "host, ports, transports, systems, service, section, purpose, proxy, since, until, source, unknown, note"

// required are the keys that every row has, with a value.
var required = []string{"host", "ports", "transports", "service", "section", "proxy", "source"}

func (p *fileParser) row(n ast.Node) Row {
	var r Row
	m, ok := n.(ast.MapNode)
	if !ok {
		p.fail(n, "", fmt.Errorf("want a row with the keys %s", strings.Join(required, ", ")))
		return r
	}
	seen := map[string]bool{}
	for it := m.MapRange(); it.Next(); {
		key, _ := scalar(it.Key())
		read := fields[key]
		switch {
		case read == nil:
			p.fail(it.Key(), cmp.Or(key, it.Key().String()), errors.New("unknown key (allowed: "+keys+")"))
		case seen[key]:
			p.fail(it.Key(), key, errors.New("stands twice in a row"))
		default:
			read(p, &r, key, it.Value())
		}
		seen[key] = true
	}
	for _, key := range required {
		if !seen[key] {
			p.fail(n, key, errors.New("is missing from the row"))
		}
	}
	return r
}

// text reads a scalar. An empty one is a mistake: a key with nothing to say is
// left out.
func (p *fileParser) text(key string, n ast.Node, dst *string, check func(string) error) {
	s, ok := scalar(n)
	switch {
	case !ok:
		p.fail(n, key, errors.New("want text"))
	case s == "":
		p.fail(n, key, errors.New("is empty"))
	default:
		*dst = s
		p.fail(n, key, check(s))
	}
}

// words reads a list of words, each one of allowed, none twice.
func (p *fileParser) words(key string, n ast.Node, dst *[]string, allowed []string) {
	p.list(key, n, func(s string) error {
		err := checkWord(s, allowed)
		if err == nil {
			*dst, err = addUnique(*dst, s)
		}
		return err
	})
}

// list reads a list of scalars that is not empty.
func (p *fileParser) list(key string, n ast.Node, add func(string) error) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		p.fail(n, key, errors.New("want a list in brackets, with one value or more"))
		return
	}
	for _, v := range seq.Values {
		if s, ok := scalar(v); ok {
			p.fail(v, key, add(s))
		} else {
			p.fail(v, key, errors.New("want a list of plain values"))
		}
	}
}

// scalar returns the text of a plain or quoted value, as it is written: 443,
// 2023-07 and yes alike.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	}
	return "", false
}
