package tunnel

import "bytes"

// A Head is the head of a CONNECT request in its strict common form. Its slices
// point into the buffer that was parsed.
type Head struct {
	Target []byte // the authority, as sent
	Agent  []byte // the value of User-Agent; nil where there is none
	Len    int    // bytes of the head, with the empty line
}

var (
	connectMethod = []byte("CONNECT ")
	httpVersion   = []byte(" HTTP/1.1\r\n")
	userAgent     = []byte("user-agent")
)

// parseHead parses the head of a CONNECT at the start of b. It accepts only what
// can be read in one way: HTTP/1.1, CRLF line ends, no folded lines, nothing
// that speaks of a body, one Host at most. ok is false for everything else, also
// for a head that is not complete: net/http then gets the bytes and decides what
// they are.
func parseHead(b []byte) (h Head, ok bool) {
	if !bytes.HasPrefix(b, connectMethod) {
		return h, false
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 || !bytes.HasSuffix(b[:end+1], httpVersion) || end+1 <= len(connectMethod)+len(httpVersion) {
		return h, false
	}
	h.Target = b[len(connectMethod) : end+1-len(httpVersion)]
	for _, c := range h.Target {
		if c <= ' ' || c >= 0x7f {
			return h, false
		}
	}
	hosts := 0
	for at := end + 1; ; {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 1 || b[at+n-1] != '\r' {
			return h, false
		}
		line := b[at : at+n-1]
		at += n + 1
		if len(line) == 0 {
			h.Len = at
			return h, true
		}
		name, value, found := cutHeader(line)
		if !found {
			return h, false
		}
		switch len(name) {
		case len("host"):
			if equalFold(name, "host") {
				if hosts++; hosts > 1 {
					return h, false
				}
			}
		case len("expect"):
			if equalFold(name, "expect") {
				return h, false
			}
		case len(userAgent):
			if equalFold(name, "user-agent") {
				h.Agent = value
			}
		case len("content-length"):
			if equalFold(name, "content-length") {
				return h, false
			}
		case len("transfer-encoding"):
			if equalFold(name, "transfer-encoding") {
				return h, false
			}
		}
	}
}

// cutHeader splits a header line and checks every byte of it (RFC 9110, 5.1 and
// 5.5; bytes from 0x80 are left to net/http).
func cutHeader(line []byte) (name, value []byte, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon < 1 {
		return nil, nil, false
	}
	name, value = line[:colon], line[colon+1:]
	for _, c := range name {
		if !tokenByte[c] {
			return nil, nil, false
		}
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c >= 0x7f {
			return nil, nil, false
		}
	}
	return name, bytes.Trim(value, " \t"), true
}

// tokenByte are the bytes of a token, RFC 9110, 5.6.2.
var tokenByte = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

// equalFold compares a header name with its lower-case form of the same length.
func equalFold(name []byte, lower string) bool {
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
