// Package httpurl parses the URLs that configurations, flags and forms name.
package httpurl

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"espalier/policy"
)

// Parse returns an absolute http or https URL whose host is a name or an address
// and whose port, if it has one, is 1 to 65535. The host is ASCII, as clients
// without IDNA need it; the rest is escaped where RFC 3986 requires it. URLs with a
// user, a password or a fragment are invalid. The error does not repeat s.
func Parse(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		return nil, errors.New("missing http:// or https://")
	}
	u, err := url.Parse(s)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL
		}
		return nil, err
	}
	port := uint16(80)
	switch u.Scheme {
	case "http":
	case "https":
		port = 443
	default:
		return nil, fmt.Errorf("scheme must be http or https, not %q", u.Scheme)
	}
	if u.User != nil {
		return nil, errors.New("user and password are not allowed")
	}
	if u.Fragment != "" || strings.Contains(s, "#") {
		return nil, errors.New("a fragment (#) is not allowed")
	}
	if u.Host == "" {
		return nil, errors.New("missing host")
	}
	target, err := policy.ParseTarget(u.Host, port)
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(u.Host, func(r rune) bool { return r >= 0x80 }) {
		u.Host = target.String()
		if u.Port() == "" || target.Port == port {
			u.Host = target.Host
		}
	}
	u.RawQuery = escape(u.RawQuery) // which url.URL leaves as it came
	return u, nil
}

// Base is Parse for a URL of scheme, host and port alone, to which paths are
// appended.
func Base(s string) (*url.URL, error) {
	u, err := Parse(s)
	if err != nil {
		return nil, err
	}
	if u.Path != "" || u.RawQuery != "" || u.ForceQuery {
		return nil, errors.New("a path or query is not allowed")
	}
	return u, nil
}

// escape percent-encodes what is not printable ASCII.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
