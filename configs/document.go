package configs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of what is parsed at all; the parser's time grows with the square of
// the last two.
const (
	maxFile  = 4 << 20
	maxDepth = 32
	maxKeys  = 20_000
)

// A syntaxError is why a text is no YAML that can be used here.
type syntaxError struct {
	line, col int // 0 for the text as a whole
	message   string
}

func (e *syntaxError) Error() string { return e.message }

func syntaxErrorf(line, col int, format string, args ...any) error {
	return &syntaxError{line, col, fmt.Sprintf(format, args...)}
}

// parse parses one YAML document. It returns nil for an empty one. Every error
// is a *syntaxError. The tree holds no anchor, alias, merge key or tag: what a
// key is set to should stand where the key stands.
func parse(text []byte) (_ ast.Node, err error) {
	defer func() {
		if p := recover(); p != nil { // of the YAML package
			err = syntaxErrorf(0, 0, "is no YAML: the parser failed on it (%v)", p)
		}
	}()
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	// With CRLF the lexer counts some lines twice.
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if err := checkText(text); err != nil {
		return nil, err
	}
	tokens := lexer.Tokenize(string(text))
	if err := checkTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, parserError(err)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.DirectiveType {
			continue
		}
		if body != nil {
			line, col := position(doc.Body)
			if doc.Start != nil {
				line, col = doc.Start.Position.Line, doc.Start.Position.Column
			}
			return nil, syntaxErrorf(line, col, "a second document begins here (allowed: one document in a file)")
		}
		body = doc.Body
	}
	return body, nil
}

// checkText refuses what YAML does not allow in a text: bytes that are no
// UTF-8, and control characters.
func checkText(text []byte) error {
	if bytes.HasPrefix(text, []byte{0xff, 0xfe}) || bytes.HasPrefix(text, []byte{0xfe, 0xff}) {
		return syntaxErrorf(1, 1, "is UTF-16; save the file as UTF-8")
	}
	line, col := 1, 1
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return syntaxErrorf(line, col, "byte 0x%02x is no UTF-8; save the file as UTF-8", text[i])
		case r < ' ' && r != '\t' && r != '\n' || r == 0x7f:
			return syntaxErrorf(line, col, "control character %U stands in the text", r)
		}
		i, col = i+size, col+1
		if r == '\n' {
			line, col = line+1, 1
		}
	}
	return nil
}

// checkTokens refuses what the parser must not see, or what it would explain
// badly.
func checkTokens(tokens token.Tokens) error {
	depth, keys := 0, 0
	line, onLine := 0, 0
	for i, t := range tokens {
		at := t.Position
		bad := func(format string, args ...any) error {
			return syntaxErrorf(at.Line, at.Column, format, args...)
		}
		if at.Line != line {
			line, onLine = at.Line, 0
		}
		switch t.Type {
		case token.AliasType:
			if i+1 < len(tokens) && strings.HasPrefix(tokens[i+1].Value, ".") {
				return bad("quote what begins with *: \"*%s\"", tokens[i+1].Value)
			}
			return bad("aliases (*) are not supported: write the value out, or quote a text that begins with *")
		case token.AnchorType:
			return bad("anchors (&) are not supported: write the value out, or quote a text that begins with &")
		case token.TagType:
			return bad("tags (!) are not supported: quote a text that begins with !")
		case token.MergeKeyType:
			return bad("merge keys (<<) are not supported: write the values out")
		case token.MappingValueType:
			keys++
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType:
			onLine++
		}
		if depth+onLine > maxDepth {
			return bad("is nested more than %d deep", maxDepth)
		}
		if keys > maxKeys {
			return bad("has more than %d keys", maxKeys)
		}
	}
	return nil
}

// parserError says in our words what the parser found.
func parserError(err error) error {
	var e yaml.Error
	if !errors.As(err, &e) {
		return syntaxErrorf(0, 0, "is no YAML: %v", err)
	}
	var line, col int
	if t := e.GetToken(); t != nil && t.Position != nil {
		line, col = t.Position.Line, t.Position.Column
	}
	message := e.GetMessage()
	switch {
	case strings.Contains(message, `'\t'`) || strings.Contains(message, "'\t'"):
		message = "a tab stands where spaces should (YAML indents with spaces)"
	case strings.HasPrefix(message, "mapping value is not allowed"):
		message = "a key cannot stand here (check the indentation; quote a value that holds \": \")"
	}
	return syntaxErrorf(line, col, "is no YAML: %s", message)
}

// position is where a node begins. The tokens that the parser keeps for
// sections stand behind their first key.
func position(n ast.Node) (line, col int) {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return position(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(v.Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line, t.Position.Column
	}
	return 0, 0
}

// block reports whether n is a section or a list in block style, which begins
// below its key.
func block(n ast.Node) bool {
	switch v := n.(type) {
	case *ast.MappingNode:
		return !v.IsFlowStyle
	case *ast.MappingValueNode:
		return true
	case *ast.SequenceNode:
		return !v.IsFlowStyle
	}
	return false
}
