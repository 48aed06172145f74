package http1

import (
	"bytes"
	"errors"
	"net/http"
	"strings"

	"espalier/proxy/exchange"
)

var (
	errUserInfo = errors.New("user information in a URL") // RFC 9110, 4.2.4
	errFragment = errors.New("a fragment before the path of a URL")
	errNoPath   = errors.New("the request target is not a path")
)

// question finds out where r leads (RFC 9112, section 3.2), for Admit. own is set if it is
// about the proxy itself. A malformed request has what could be read.
func (c *conn) question(r *request) (own bool) {
	ask, raw := &r.ask, r.head.Target
	switch {
	case r.is(http.MethodConnect):
		ask.Authority = string(raw)
	case parseURL(raw, ask):
		if r.is(http.MethodOptions) && ask.Path == "/" && raw[len(raw)-1] != '/' {
			ask.Path = "*" // RFC 9112, 3.2.4
		}
	case c.session == nil:
		ask.Authority = string(r.head.Host)
		return true
	default: // origin form
		ask.Scheme, ask.Authority, ask.Path = c.session.Scheme(), string(r.head.Host), string(raw)
		if r.head.Hosts == 0 { // HTTP/1.0
			if ask.Authority = c.session.Host(); strings.IndexByte(ask.Authority, ':') >= 0 {
				ask.Authority = "[" + ask.Authority + "]"
			}
		}
		if !strings.HasPrefix(ask.Path, "/") && ask.Path != "*" {
			ask.Invalid = errNoPath
		}
	}
	return false
}

// parseURL splits an absolute URL into ask. It reports false for other forms.
func parseURL(raw []byte, ask *exchange.Request) bool {
	i := bytes.Index(raw, []byte("://"))
	if i < 1 || bytes.IndexByte(raw[:i], '/') >= 0 {
		return false
	}
	url := string(raw)
	ask.Scheme = strings.ToLower(url[:i])
	rest := url[i+len("://"):]
	end := strings.IndexAny(rest, "/?#\\")
	if end < 0 {
		end = len(rest)
	}
	ask.Authority, ask.Path = rest[:end], rest[end:]
	switch {
	case strings.IndexByte(ask.Authority, '@') >= 0:
		ask.Invalid = errUserInfo
	case ask.Path != "" && (ask.Path[0] == '#' || ask.Path[0] == '\\'):
		ask.Invalid = errFragment
	case ask.Path == "" || ask.Path[0] == '?':
		ask.Path = "/" + ask.Path
	}
	return true
}
