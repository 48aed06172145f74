package head

import (
	"bytes"
	"strings"
)

// A Request is the head of a request. Its byte slices point into what was parsed.
type Request struct {
	Method, Target []byte // as sent
	Minor          byte   // of the version: 0 or 1
	Host           []byte // the value of Host
	Hosts          int    // Host fields: 0 or 1
	Agent          []byte // the value of User-Agent; nil without one
	Fields         Fields
	// Length of the body: 0 for none, or Chunked.
	Length int64
	// Close is set if the connection ends with the answer: the client says so, or
	// speaks HTTP/1.0 and does not ask to keep it.
	Close     bool
	Expect    bool // 100-continue
	WebSocket bool // an upgrade to it is asked for (RFC 6455, 4.1)
	// Nominates is set if Connection names other fields; see Fields.Nominates.
	Nominates bool
	// SignsIn is set if Authorization signs in the connection and not the request.
	SignsIn bool
	Len     int // of the head, with its empty line
}

// ParseRequest parses the head at the start of b. It takes only a head that no two
// recipients can read differently: it refuses bare CR and LF, folded lines, white
// space around names, control characters, two lengths, and encodings other than
// chunked (RFC 9112, sections 2.2, 5 and 6). The error is ErrIncomplete while the
// end of the head has not come, or an *Error; beside an *Error the Request has
// what was read before the fault, for the record. It does not allocate but for an
// error.
func ParseRequest(b []byte) (r Request, err error) {
	line, rest, err := cutLine(b)
	if err != nil {
		if err != ErrIncomplete {
			_ = r.line(line) // for the record
		}
		return r, err
	}
	if err := r.line(line); err != nil {
		return r, err
	}
	var seen requestFields
	for fields := 0; ; fields++ {
		if line, rest, err = cutLine(rest); err != nil {
			return r, err
		}
		if len(line) == 0 {
			break
		}
		if fields == MaxFields {
			return r, errFields
		}
		name, value, err := field(line)
		if err == nil {
			err = seen.framing.see(name, value)
		}
		if err == nil {
			err = r.see(name, value, &seen)
		}
		if err != nil {
			return r, err
		}
	}
	if err := r.frame(&seen); err != nil {
		return r, err
	}
	r.Len = len(b) - len(rest)
	first := bytes.IndexByte(b, '\n') + 1
	r.Fields = Fields(b[first : r.Len-2])
	return r, nil
}

// requestFields is what the fields of a request say together.
type requestFields struct {
	framing       framing
	keep, upgrade bool
}

// see notes what a field says.
func (r *Request) see(name, value []byte, seen *requestFields) error {
	switch len(name) {
	case len("host"):
		if !equalFold(name, "host") {
			return nil
		}
		if r.Hosts++; r.Hosts > 1 {
			return bad("it has two Host headers")
		}
		if !isHost(value) {
			return bad("its Host header is invalid")
		}
		r.Host = value
	case len("expect"):
		if !equalFold(name, "expect") {
			return nil
		}
		if !equalFold(value, "100-continue") {
			return &Error{417, "its Expect header is unknown to this proxy"}
		}
		r.Expect = true
	case len("upgrade"):
		seen.upgrade = seen.upgrade || equalFold(name, "upgrade") && equalFold(value, "websocket")
	case len("user-agent"): // and connection
		if equalFold(name, "user-agent") {
			r.Agent = value
		} else if equalFold(name, "connection") {
			o := readOptions(value)
			r.Close, seen.keep = r.Close || o.close, seen.keep || o.keep
			r.WebSocket, r.Nominates = r.WebSocket || o.upgrade, r.Nominates || o.others
		}
	case len("authorization"):
		r.SignsIn = r.SignsIn || equalFold(name, "authorization") && SignsInConnection(string(value[:min(len(value), len("Negotiate "))]))
	case len("proxy-connection"):
		if equalFold(name, "proxy-connection") {
			o := readOptions(value)
			r.Close, seen.keep = r.Close || o.close, seen.keep || o.keep
		}
	}
	return nil
}

// frame finds out what the fields say of the body and the connection.
func (r *Request) frame(seen *requestFields) error {
	f := &seen.framing
	isConnect := string(r.Method) == "CONNECT"
	switch {
	case f.encodings > 0 && r.Minor == 0:
		return bad("it has a Transfer-Encoding in HTTP/1.0")
	case r.Minor == 1 && r.Hosts == 0 && !isConnect:
		return bad("it has no Host header")
	case isConnect && (f.length > 0 || f.encodings > 0):
		return bad("a CONNECT has a body")
	}
	if r.Length = f.length; f.encodings > 0 {
		r.Length = Chunked
	}
	r.WebSocket = r.WebSocket && seen.upgrade && string(r.Method) == "GET" && r.Minor == 1 && r.Length == 0
	r.Close = r.Close || r.Minor == 0 && !seen.keep
	r.Expect = r.Expect && r.Minor == 1 && r.Length != 0 // RFC 9110, 10.1.1
	return nil
}

// line reads the request line (RFC 9112, section 3).
func (r *Request) line(line []byte) error {
	method, err := CheckRequestLine(line)
	r.Method = method
	_, rest, _ := bytes.Cut(line, []byte(" "))
	r.Target, _, _ = bytes.Cut(rest, []byte(" "))
	if err == nil {
		r.Minor = line[len(line)-1] - '0'
	}
	return err
}

// CheckRequestLine checks a request line without its CRLF. method is set beside an
// error if it is a token. The error is an *Error.
func CheckRequestLine(line []byte) (method []byte, err error) {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, ok := bytes.Cut(rest, []byte(" "))
	switch {
	case !isToken(method):
		return nil, bad("its method is not a token")
	case !ok || len(target) == 0:
		return method, bad("its request line does not have three parts")
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return method, bad("its request target has a byte %q", c)
		}
	}
	switch {
	case !isVersion(version):
		return method, bad("its request line does not end in a version of HTTP")
	case string(version) != "HTTP/1.1" && string(version) != "HTTP/1.0":
		return method, &Error{505, "its version is neither HTTP/1.1 nor HTTP/1.0"}
	}
	for _, c := range method {
		if 'a' <= c && c <= 'z' {
			// Methods have case, and no registered one is in lower case. An origin that takes
			// "head" for HEAD would answer without a body.
			return method, &Error{501, "its method is in lower case"}
		}
	}
	return method, nil
}

// SignsInConnection reports whether an Authorization header is of a scheme that
// signs in the connection and not the request (RFC 4559).
func SignsInConnection(authorization string) bool {
	scheme := authorization
	if end := strings.IndexFunc(scheme, func(c rune) bool { return c > 0x7f || !token[c] }); end >= 0 {
		scheme = scheme[:end] // also where a space should stand
	}
	return strings.EqualFold(scheme, "NTLM") || strings.EqualFold(scheme, "Negotiate")
}
