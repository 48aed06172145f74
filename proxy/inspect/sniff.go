package inspect

import (
	"bytes"
	"errors"
)

// A Kind is what a client speaks.
type Kind int

const (
	More   Kind = iota // cannot be told yet
	TLS                // a whole ClientHello is there
	BadTLS             // TLS that no server could answer
	HTTP               // the first line of an HTTP/1 request is there
	Other              // something else
)

// maxLine bounds the first line of a request, and maxMethod its method.
const (
	maxLine   = 8 << 10
	maxMethod = 20
)

// Sniff looks at the first bytes of a client. The Hello is set for TLS alone.
// A client that sends more and more is told to be BadTLS before b has grown
// beyond twice MaxHello.
func Sniff(b []byte) (Kind, *Hello) {
	if len(b) == 0 {
		return More, nil
	}
	if mayBeSSL2(b) {
		if len(b) < 4 {
			return More, nil
		}
		return BadTLS, nil
	}
	if MayBeTLS(b) {
		h, err := ParseHello(b)
		switch {
		case err == nil:
			return TLS, h
		case errors.Is(err, ErrShort) && len(b) < 2*MaxHello:
			return More, nil
		}
		return BadTLS, nil
	}
	return sniffLine(b), nil
}

// MayBeTLS reports whether b, which is not empty, begins with a record of TLS (RFC 8446, 5.1),
// or would if there were more of it. It need not be a handshake's: some servers skip alerts
// before a ClientHello.
func MayBeTLS(b []byte) bool {
	return b[0] >= recordFirst && b[0] <= recordLast && (len(b) == 1 || b[1] == 3)
}

// mayBeSSL2 reports whether b, which is not empty, begins with a ClientHello in the format of
// SSL 2.0 that offers TLS (RFC 5246, E.2), or would if there were more of it. Some servers
// answer one with TLS.
func mayBeSSL2(b []byte) bool {
	return b[0]&0x80 != 0 && (len(b) < 3 || b[2] == messageHello) && (len(b) < 4 || b[3] == 3)
}

// Begun reports whether b, which Sniff wants more of, would be TLS then.
func Begun(b []byte) bool { return len(b) > 0 && (MayBeTLS(b) || mayBeSSL2(b)) }

// isMethod reports whether b may be the method of a request. Some servers take lower case.
func isMethod(b []byte) bool {
	return !bytes.ContainsFunc(b, func(r rune) bool { return (r|0x20 < 'a' || r|0x20 > 'z') && r != '-' })
}

// sniffLine looks for "METHOD target HTTP/1.x" and the end of the line.
func sniffLine(b []byte) Kind {
	long := len(b) >= maxLine
	b = bytes.TrimLeft(b[:min(len(b), maxLine)], "\r\n") // servers skip empty lines (RFC 9112, 2.2)
	if len(b) == 0 && !long {
		return More
	}
	line, _, whole := bytes.Cut(b, []byte("\n"))
	method, rest, ok := bytes.Cut(line, []byte(" "))
	if len(method) == 0 || len(method) > maxMethod || !isMethod(method) {
		return Other
	}
	if bytes.ContainsFunc(bytes.TrimSuffix(rest, []byte("\r")), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Other
	}
	if !whole {
		if long {
			return Other
		}
		return More
	}
	target, version, _ := bytes.Cut(bytes.TrimSuffix(rest, []byte("\r")), []byte(" "))
	if !ok || len(target) == 0 || len(version) != len("HTTP/1.x") || !bytes.HasPrefix(version, []byte("HTTP/1.")) {
		return Other
	}
	return HTTP
}
