// Package head parses the heads of HTTP/1 messages. It takes only what can be read
// in one way (RFC 9112), and hands the lines out as they were sent.
package head

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds on every head, in both directions.
const (
	MaxBytes  = 64 << 10 // with its empty line
	MaxFields = 200
)

// ErrIncomplete says that the end of a head has not come.
var ErrIncomplete = errors.New("the head is incomplete")

// An Error says what is wrong with a head. Its text is safe to log and repeats
// nothing of it.
type Error struct {
	Status int // for the client, if it is a request's
	Why    string
}

func (e *Error) Error() string { return e.Why }

func bad(format string, a ...any) error { return &Error{400, fmt.Sprintf(format, a...)} }

var errFields = &Error{431, fmt.Sprintf("it has more than %d header lines", MaxFields)}

// Fields are the header lines of a head, each with its CRLF, every byte checked.
type Fields []byte

// A Field is one header line.
type Field struct {
	Name  []byte // as sent
	Value []byte // without white space around it
	Line  []byte // the whole line with its CRLF
}

// Next returns the first field and those behind it; ok is false at the end.
func (f Fields) Next() (first Field, rest Fields, ok bool) {
	end := bytes.IndexByte(f, '\n')
	if end < 0 {
		return Field{}, nil, false
	}
	line := f[:end+1]
	colon := bytes.IndexByte(line, ':')
	return Field{line[:colon], bytes.Trim(line[colon+1:end-1], " \t"), line}, f[end+1:], true
}

// Get returns the values of the fields with a name in lower case, joined by
// commas; "" without one.
func (f Fields) Get(lower string) string {
	value := ""
	for first, rest, ok := f.Next(); ok; first, rest, ok = rest.Next() {
		if !first.Is(lower) {
			continue
		}
		if value != "" {
			value += ", "
		}
		value += string(first.Value)
	}
	return value
}

// Nominates reports whether a Connection header names name, so that it is for
// this connection only (RFC 9110, section 7.6.1). What frames and routes the
// message cannot be named away.
func (f Fields) Nominates(name []byte) bool {
	for _, kept := range [...]string{"content-length", "transfer-encoding", "host"} {
		if is(name, kept) {
			return false
		}
	}
	for first, rest, ok := f.Next(); ok; first, rest, ok = rest.Next() {
		if !first.Is("connection") {
			continue
		}
		for option := range bytes.SplitSeq(first.Value, []byte(",")) {
			if bytes.EqualFold(bytes.Trim(option, " \t"), name) {
				return true
			}
		}
	}
	return false
}

// Is compares the name with one in lower case.
func (f Field) Is(lower string) bool { return is(f.Name, lower) }

// Upgrades reports whether f asks for another protocol, or grants it.
func (f Field) Upgrades() bool { return f.Is("connection") || f.Is("upgrade") }

// HopByHop reports whether f concerns one connection only: RFC 9110, 7.6.1, and
// what older proxies made up. Transfer-Encoding does too, but frames the body,
// which passes as it is framed.
func (f Field) HopByHop() bool {
	switch len(f.Name) {
	case len("te"):
		return f.Is("te")
	case len("upgrade"):
		return f.Is("upgrade")
	case len("connection"): // and keep-alive
		return f.Is("connection") || f.Is("keep-alive")
	case len("proxy-connection"):
		return f.Is("proxy-connection")
	case len("proxy-authenticate"):
		return f.Is("proxy-authenticate")
	case len("proxy-authorization"):
		return f.Is("proxy-authorization")
	case len("proxy-authentication-info"):
		return f.Is("proxy-authentication-info")
	}
	return false
}

// End returns the length of the head at the start of b, with its empty line,
// also for those who take a bare LF for the end of a line; 0 while its end has
// not come. The first from bytes are known not to hold it.
func End(b []byte, from int) int {
	for i := max(from-3, 0); i < len(b); i++ {
		k := bytes.IndexByte(b[i:], '\n')
		if k < 0 {
			return 0
		}
		i += k
		switch rest := b[i+1:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return i + 2
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 3
		}
	}
	return 0
}

// cutLine cuts the first line off, which must end in CRLF.
func cutLine(b []byte) (line, rest []byte, err error) {
	n := bytes.IndexByte(b, '\n')
	switch {
	case n < 0:
		return nil, b, ErrIncomplete
	case n > 0 && b[n-1] == '\r':
		return b[:n-1], b[n+1:], nil
	}
	return b[:n], b[n+1:], bad("a line ends in a bare LF")
}

// field splits a header line and checks every byte of it (RFC 9110, 5.1 and 5.5).
func field(line []byte) (name, value []byte, err error) {
	colon := bytes.IndexByte(line, ':')
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, bad("a header line is folded")
	}
	if colon < 1 || !token.all(line[:colon]) || !text.all(line[colon+1:]) {
		return nil, nil, bad("a header line is malformed, or has a control character")
	}
	return line[:colon], bytes.Trim(line[colon+1:], " \t"), nil
}

// A reading is what the fields of a head say together.
type reading struct {
	lengths, encodings              int
	length                          int64
	close, keep, upgrade, nominates bool // options of Connection; nominates: other fields
	webSocket                       bool // Upgrade asks for it, or grants it
}

// fields reads the header lines of b, up to the empty line, whose end it returns. see is
// called for each, first.
func (s *reading) fields(b []byte, see func(name, value []byte) error) (end int, err error) {
	for count := 0; ; count++ {
		line, rest, err := cutLine(b[end:])
		if err != nil {
			return end, err
		}
		end = len(b) - len(rest)
		switch {
		case len(line) == 0:
			return end, nil
		case count == MaxFields:
			return end, errFields
		}
		name, value, err := field(line)
		if err == nil {
			err = see(name, value)
		}
		if err != nil {
			return end, err
		}
	}
}

// see notes what a field says that requests and answers have in common.
func (s *reading) see(name, value []byte) error {
	switch {
	case is(name, "connection"):
		s.options(value)
	case is(name, "upgrade"):
		s.webSocket = s.webSocket || is(value, "websocket")
	case is(name, "content-length"):
		n, err := strconv.ParseUint(string(value), 10, 60)
		if err != nil {
			return bad("its Content-Length is not a number")
		}
		s.length = int64(n)
		s.lengths++
	case is(name, "transfer-encoding"):
		if !is(value, "chunked") {
			return &Error{501, "its Transfer-Encoding is not chunked"}
		}
		s.encodings++
	}
	return nil
}

// options reads the value of a Connection header.
func (s *reading) options(value []byte) {
	for option := range bytes.SplitSeq(value, []byte(",")) {
		switch option = bytes.Trim(option, " \t"); {
		case len(option) == 0:
		case is(option, "close"):
			s.close = true
		case is(option, "keep-alive"):
			s.keep = true
		case is(option, "upgrade"):
			s.upgrade = true
		default:
			s.nominates = true
		}
	}
}

// body returns the length of the body, none if nothing tells it, in HTTP/1.minor.
func (s *reading) body(minor byte, none int64) (int64, error) {
	switch {
	case s.lengths > 1:
		return 0, bad("it has two Content-Length headers")
	case s.encodings > 1:
		return 0, bad("it has two Transfer-Encoding headers")
	case s.lengths > 0 && s.encodings > 0:
		return 0, bad("it has both Content-Length and Transfer-Encoding")
	case s.encodings > 0 && minor == 0:
		return 0, bad("it has a Transfer-Encoding in HTTP/1.0")
	case s.encodings > 0:
		return Chunked, nil
	case s.lengths > 0:
		return s.length, nil
	}
	return none, nil
}

// A set is one of bytes.
type set [256]bool

func setOf(in func(c rune) bool) (s set) {
	for c := range s {
		s[c] = in(rune(c))
	}
	return s
}

func (s *set) all(b []byte) bool {
	for _, c := range b {
		if !s[c] {
			return false
		}
	}
	return true
}

const alphanumeric = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

var (
	token = setOf(func(c rune) bool { return strings.ContainsRune("!#$%&'*+-.^_`|~"+alphanumeric, c) }) // RFC 9110, 5.6.2
	// What a host, literal or port may have (RFC 3986, 3.2.2), so that it is the same to
	// everyone who reads it.
	hostByte = setOf(func(c rune) bool { return strings.ContainsRune("!$%&'()*+,-.:;=[]_~"+alphanumeric, c) })
	text     = setOf(func(c rune) bool { return c >= ' ' && c != 0x7f || c == '\t' })
	visible  = setOf(func(c rune) bool { return c > ' ' && c != 0x7f })
)

// is compares b with a string in lower case.
func is(b []byte, lower string) bool { return len(b) == len(lower) && equalFold(b, lower) }

func equalFold(b []byte, lower string) bool {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
