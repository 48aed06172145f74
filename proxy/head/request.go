package head

import (
	"bytes"
	"unicode"
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
	if err == ErrIncomplete {
		return r, err
	}
	if wrong := r.line(line); err == nil {
		err = wrong
	}
	if err != nil {
		return r, err
	}
	var s reading
	first := len(b) - len(rest)
	n, err := s.fields(rest, func(name, value []byte) error { return r.see(name, value, &s) })
	if err != nil {
		return r, err
	}
	if err := r.frame(&s); err != nil {
		return r, err
	}
	r.Len = first + n
	r.Fields = Fields(b[first : r.Len-2])
	return r, nil
}

// see notes what a field says.
func (r *Request) see(name, value []byte, s *reading) error {
	switch {
	case is(name, "host"):
		if r.Hosts++; r.Hosts > 1 {
			return bad("it has two Host headers")
		}
		if !hostByte.all(value) {
			return bad("its Host header is invalid")
		}
		r.Host = value
	case is(name, "expect"):
		if !is(value, "100-continue") {
			return &Error{417, "its Expect header is unknown to this proxy"}
		}
		r.Expect = true
	case is(name, "user-agent"):
		r.Agent = value
	case is(name, "authorization"):
		r.SignsIn = r.SignsIn || signsInConnection(value)
	case is(name, "proxy-connection"):
		var o reading
		o.options(value)
		s.close, s.keep = s.close || o.close, s.keep || o.keep
	}
	return s.see(name, value)
}

// frame finds out what the fields say of the body and the connection.
func (r *Request) frame(s *reading) (err error) {
	if r.Length, err = s.body(r.Minor, 0); err != nil {
		return err
	}
	isConnect := string(r.Method) == "CONNECT"
	switch {
	case r.Minor == 1 && r.Hosts == 0 && !isConnect:
		return bad("it has no Host header")
	case isConnect && r.Length != 0:
		return bad("a CONNECT has a body")
	}
	r.Nominates = s.nominates
	r.WebSocket = s.upgrade && s.webSocket && string(r.Method) == "GET" && r.Minor == 1 && r.Length == 0
	r.Close = s.close || r.Minor == 0 && !s.keep
	r.Expect = r.Expect && r.Minor == 1 && r.Length != 0 // RFC 9110, 10.1.1
	return nil
}

// line reads the request line (RFC 9112, section 3). Beside an error it sets what could be
// read.
func (r *Request) line(line []byte) error {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, ok := bytes.Cut(rest, []byte(" "))
	r.Target = target
	if len(method) == 0 || !token.all(method) {
		return bad("its method is not a token")
	}
	r.Method = method
	switch {
	case !ok || len(target) == 0:
		return bad("its request line does not have three parts")
	case !visible.all(target):
		return bad("its request target has a space or a control character")
	case len(version) != len("HTTP/1.1") || string(version[:5]) != "HTTP/" || version[6] != '.':
		return bad("its request line does not end in a version of HTTP")
	case string(version) != "HTTP/1.1" && string(version) != "HTTP/1.0":
		return &Error{505, "its version is neither HTTP/1.1 nor HTTP/1.0"}
	case bytes.ContainsFunc(method, unicode.IsLower):
		// Methods have case, and no registered one is in lower case. An origin that takes
		// "head" for HEAD would answer without a body.
		return &Error{501, "its method is in lower case"}
	}
	r.Minor = version[7] - '0'
	return nil
}

// signsInConnection reports whether the value of Authorization is of a scheme that
// signs in the connection and not the request (RFC 4559).
func signsInConnection(value []byte) bool {
	scheme := value
	if end := bytes.IndexFunc(value, func(c rune) bool { return c > 0x7f || !token[c] }); end >= 0 {
		scheme = value[:end] // also where a space should be
	}
	return is(scheme, "ntlm") || is(scheme, "negotiate")
}
