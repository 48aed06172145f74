package inspect

import (
	"bytes"
	"errors"
)

// A Kind is what a client speaks.
type Kind int

const (
	More  Kind = iota // cannot be told yet
	TLS               // a whole ClientHello is there
	HTTP              // the first line of an HTTP/1 request is there
	Other             // something else
)

// maxLine bounds the first line of a request, and maxMethod its method.
const (
	maxLine   = 8 << 10
	maxMethod = 20
)

// Sniff looks at the first bytes of a client. The Hello is set for TLS alone.
// A client that sends more and more is told to be Other before b has grown
// beyond twice MaxHello.
func Sniff(b []byte) (Kind, *Hello) {
	if len(b) == 0 {
		return More, nil
	}
	if b[0] == recordHandshake {
		h, err := ParseHello(b)
		switch {
		case err == nil:
			return TLS, h
		case errors.Is(err, ErrShort) && len(b) < 2*MaxHello:
			return More, nil
		}
		return Other, nil
	}
	return sniffLine(b), nil
}

// sniffLine looks for "METHOD target HTTP/1.x" and the end of the line.
func sniffLine(b []byte) Kind {
	line, _, whole := bytes.Cut(b[:min(len(b), maxLine)], []byte("\n"))
	method, rest, ok := bytes.Cut(line, []byte(" "))
	if len(method) == 0 || len(method) > maxMethod || bytes.ContainsFunc(method, func(r rune) bool { return (r < 'A' || r > 'Z') && r != '-' }) {
		return Other
	}
	if bytes.ContainsFunc(bytes.TrimSuffix(rest, []byte("\r")), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Other
	}
	if !whole {
		if len(b) >= maxLine {
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
