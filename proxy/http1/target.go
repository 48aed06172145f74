package http1

import (
	"bytes"
	"errors"
	"strings"
)

// A target is where a request target leads to (RFC 9112, section 3.2).
type target struct {
	scheme    string // in lower case; empty in origin form
	authority string // host and port, as sent
	path      string // with the query, as sent; what an origin is asked for
	invalid   error  // what makes it no destination
}

var (
	errUserInfo = errors.New("user information in a URL") // RFC 9110, 4.2.4
	errFragment = errors.New("a fragment before the path of a URL")
)

// parseTarget splits an absolute URL. ok is false for other forms.
func parseTarget(raw []byte) (t target, ok bool) {
	i := bytes.Index(raw, []byte("://"))
	if i < 1 || bytes.IndexByte(raw[:i], '/') >= 0 {
		return target{}, false
	}
	t.scheme = strings.ToLower(string(raw[:i]))
	rest := string(raw[i+len("://"):])
	end := strings.IndexAny(rest, "/?#\\")
	if end < 0 {
		end = len(rest)
	}
	t.authority, t.path = rest[:end], rest[end:]
	switch {
	case strings.IndexByte(t.authority, '@') >= 0:
		t.invalid = errUserInfo
	case t.path != "" && (t.path[0] == '#' || t.path[0] == '\\'):
		t.invalid = errFragment
	case t.path == "" || t.path[0] == '?':
		t.path = "/" + t.path
	}
	return t, true
}

// withoutQuery is the path alone.
func (t target) withoutQuery() string {
	path, _, _ := strings.Cut(t.path, "?")
	path, _, _ = strings.Cut(path, "#")
	return path
}
