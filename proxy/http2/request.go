package http2

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// parseRequest reads a header list (RFC 9113, section 8.3.1 and 8.5). ended says
// that no body follows, extended that :protocol is allowed. With an error the
// Request holds what was read before it.
func parseRequest(fields []hpack.HeaderField, ended, extended bool) (*Request, error) {
	r := &Request{Length: -1}
	n, err := r.takePseudo(fields)
	if err != nil {
		return r, err
	}
	r.Fields = fields[n:]
	var host *string
	kept := r.Fields[:0]
	for _, f := range r.Fields {
		if err := checkField(f); err != nil {
			return r, err
		}
		switch f.Name {
		case "host":
			if host != nil {
				return r, errors.New("two host fields")
			}
			host = &f.Value
			continue
		case "content-length":
			if r.Method == "CONNECT" {
				break // its stream carries a tunnel, not a body
			}
			if r.Length >= 0 {
				return r, errors.New("two content-length fields")
			}
			if r.Length, err = parseLength(f.Value); err != nil {
				return r, err
			}
		}
		kept = append(kept, f)
	}
	r.Fields = kept
	if host != nil {
		if r.Authority != "" && !strings.EqualFold(r.Authority, *host) {
			return r, errors.New("host differs from :authority")
		}
		if r.Authority == "" && r.Method != "CONNECT" {
			r.Authority = *host
		}
	}
	if ended && r.Method != "CONNECT" {
		if r.Length > 0 {
			return r, errors.New("content-length above 0 without a body")
		}
		r.Length = 0
	}
	return r, r.checkTarget(extended)
}

// takePseudo reads the pseudo-header fields and returns how many there are.
func (r *Request) takePseudo(fields []hpack.HeaderField) (n int, err error) {
	for ; n < len(fields) && fields[n].IsPseudo(); n++ {
		f := fields[n]
		var to *string
		switch f.Name {
		case ":method":
			to = &r.Method
		case ":scheme":
			to = &r.Scheme
		case ":authority":
			to = &r.Authority
		case ":path":
			to = &r.Path
		case ":protocol":
			to = &r.Protocol
		default:
			return n, fmt.Errorf("unknown pseudo-header field %.40q", f.Name)
		}
		switch {
		case *to != "":
			return n, fmt.Errorf("two %s fields", f.Name)
		case f.Value == "":
			return n, fmt.Errorf("empty %s", f.Name)
		case f.Name != ":authority" && strings.Contains(f.Value, " "), strings.ContainsFunc(f.Value, func(c rune) bool { return c < ' ' || c == 0x7f }):
			return n, fmt.Errorf("invalid %s: white space or control character", f.Name)
		}
		*to = f.Value
	}
	return n, nil
}

// checkTarget checks that the pseudo-header fields fit together. The handler
// judges the authority of a CONNECT, and spaces in others. OPTIONS * may have none.
func (r *Request) checkTarget(extended bool) error {
	switch {
	case !httpguts.ValidHeaderFieldName(r.Method):
		return errors.New("missing or invalid :method")
	case r.Authority == "" && (r.Method != "OPTIONS" || r.Path != "*"):
		return errors.New("missing :authority")
	case r.Protocol != "" && (r.Method != "CONNECT" || !extended):
		return errors.New("unexpected :protocol")
	case r.Method == "CONNECT" && r.Protocol == "":
		if r.Scheme != "" || r.Path != "" {
			return errors.New("CONNECT with :scheme or :path")
		}
		return nil
	case strings.ContainsAny(r.Authority, `@/\?#`):
		return errors.New("invalid :authority: not a host with an optional port")
	case r.Scheme == "":
		return errors.New("missing :scheme")
	case r.Path == "":
		return errors.New("missing :path")
	case r.Path[0] != '/' && (r.Path != "*" || r.Method != "OPTIONS"):
		return errors.New("invalid :path: must begin with /")
	}
	if r.Scheme = strings.ToLower(r.Scheme); strings.Trim(r.Scheme, "abcdefghijklmnopqrstuvwxyz0123456789+-.") != "" {
		return errors.New("invalid :scheme")
	}
	return nil
}

// checkField checks a regular field (RFC 9113, 8.2). The error repeats no value:
// values may be secret.
func checkField(f hpack.HeaderField) error {
	switch {
	case f.IsPseudo():
		return fmt.Errorf("pseudo-header field %.40q after regular fields", f.Name)
	case !httpguts.ValidHeaderFieldName(f.Name) || strings.ToLower(f.Name) != f.Name:
		return fmt.Errorf("invalid field name %.40q", f.Name)
	case !httpguts.ValidHeaderFieldValue(f.Value) || strings.Trim(f.Value, " \t") != f.Value:
		return fmt.Errorf("invalid value of %s", f.Name)
	case slices.Contains(connectionSpecific, f.Name) || f.Name == "te" && !strings.EqualFold(f.Value, "trailers"):
		return fmt.Errorf("connection-specific field %s", f.Name)
	}
	return nil
}

// connectionSpecific are the fields that HTTP/2 forbids (RFC 9113, 8.2.2).
var connectionSpecific = []string{"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"}

func parseLength(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return -1, errors.New("invalid content-length")
	}
	return int64(n), nil
}

// URL returns the target as an absolute URL. Its RequestURI is Path, byte for byte:
// where net/url would escape it another way, it is in Opaque. One that begins with
// two slashes would name a host there, and is escaped.
func (r *Request) URL() *url.URL {
	u := &url.URL{Scheme: r.Scheme, Host: r.Authority}
	if r.Path == "" {
		return u
	}
	path, query, ok := strings.Cut(r.Path, "?")
	u.RawQuery, u.ForceQuery = query, ok && query == ""
	var err error
	if u.Path, err = url.PathUnescape(path); err != nil {
		u.Path = path
	}
	u.RawPath = path
	if u.EscapedPath() != path && !strings.HasPrefix(path, "//") {
		u.Opaque = path
	}
	return u
}

// Fields returns the fields of h that HTTP/2 can carry, by their names, equal names in
// their order.
func Fields(h http.Header) []hpack.HeaderField {
	fields := make([]hpack.HeaderField, 0, len(h))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			f := hpack.HeaderField{Name: strings.ToLower(name), Value: strings.Trim(v, " \t")}
			if checkField(f) == nil {
				fields = append(fields, f)
			}
		}
	}
	return fields
}
