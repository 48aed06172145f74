package head

import (
	"bytes"
	"strings"
)

// A Request is the head of a request without a body.
type Request struct {
	Method, Target []byte // as sent
	Agent          []byte // the value of User-Agent; nil where there is none
	Hosts          int    // Host headers, at most one
	Host           []byte // its value
	Fields         Fields
	Close          bool // the client closes after the answer
	Len            int  // of the head, with its empty line
}

var version11 = []byte(" HTTP/1.1\r\n")

// ParseRequest parses the head at the start of b. ok is false where it is not
// complete, and for everything that needs more than passing header lines on: a
// body, an upgrade, an expectation, trailers, headers that Connection nominates,
// two hosts, credentials that sign in the connection, versions but HTTP/1.1.
func ParseRequest(b []byte) (r Request, ok bool) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 || !bytes.HasSuffix(b[:end+1], version11) {
		return r, false
	}
	line := b[:end+1-len(version11)]
	space := bytes.IndexByte(line, ' ')
	if space < 1 || space == len(line)-1 {
		return r, false
	}
	r.Method, r.Target = line[:space], line[space+1:]
	for _, c := range r.Method {
		if c < 'A' || c > 'Z' {
			return r, false
		}
	}
	for _, c := range r.Target {
		if c <= ' ' || c >= 0x7f {
			return r, false
		}
	}
	n := parseFields(b[end+1:], false, func(name, value []byte) bool {
		switch len(name) {
		case len("te"):
			return !equalFold(name, "te")
		case len("host"):
			if equalFold(name, "host") {
				r.Hosts++
				r.Host = value
				return r.Hosts == 1 && isHost(value)
			}
		case len("expect"):
			return !equalFold(name, "expect")
		case len("upgrade"): // and trailer
			return !equalFold(name, "upgrade") && !equalFold(name, "trailer")
		case len("user-agent"): // and connection, keep-alive
			if equalFold(name, "user-agent") {
				r.Agent = value
			} else if equalFold(name, "connection") {
				closes, ok := connection(value)
				r.Close = r.Close || closes
				return ok
			}
		case len("authorization"):
			return !equalFold(name, "authorization") || !SignsInConnection(string(value[:min(len(value), len("Negotiate "))]))
		case len("content-length"):
			return !equalFold(name, "content-length")
		case len("proxy-connection"):
			if equalFold(name, "proxy-connection") {
				closes, ok := connection(value)
				r.Close = r.Close || closes
				return ok
			}
		case len("transfer-encoding"):
			return !equalFold(name, "transfer-encoding")
		}
		return true
	})
	if n == 0 {
		return r, false
	}
	r.Len = end + 1 + n
	r.Fields = Fields(b[end+1 : r.Len-2])
	return r, true
}

// SignsInConnection reports whether an Authorization header is of a scheme that
// signs in the connection and not the request.
func SignsInConnection(authorization string) bool {
	scheme := authorization
	if end := strings.IndexFunc(scheme, func(c rune) bool { return c > 0x7f || !token[c] }); end >= 0 {
		scheme = scheme[:end] // also where a space should stand
	}
	return strings.EqualFold(scheme, "NTLM") || strings.EqualFold(scheme, "Negotiate")
}
