// Package head parses the heads of HTTP/1.1 messages in their strict common
// form: what can be read in one way only. Whatever else a head may be is left to
// net/http, which gets the bytes as they came.
//
// Nothing here allocates; what is returned points into the buffer that was
// parsed.
package head

import "bytes"

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

// Is compares the name with one in lower case.
func (f Field) Is(lower string) bool { return equalFold(f.Name, lower) }

// Complete returns the length of the head at the start of b, with its empty
// line; 0 where its end has not come.
func Complete(b []byte) int {
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return i + 4
	}
	return 0
}

// parseFields checks header lines up to the empty line, and calls see for each.
// It returns their length with the empty line, 0 where they are not strict or
// not complete, or see returns false. Values may hold bytes from 0x80 where
// obsText is set (RFC 9110, 5.5).
func parseFields(b []byte, obsText bool, see func(name, value []byte) bool) int {
	for at, fields := 0, 0; ; fields++ {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 1 || b[at+n-1] != '\r' {
			return 0
		}
		line := b[at : at+n-1]
		at += n + 1
		if len(line) == 0 {
			return at
		}
		name, value, ok := cut(line, obsText)
		if !ok || fields == MaxFields || !see(name, value) {
			return 0
		}
	}
}

// cut splits a header line and checks every byte of it (RFC 9110, 5.1 and 5.5).
func cut(line []byte, obsText bool) (name, value []byte, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon < 1 {
		return nil, nil, false
	}
	name, value = line[:colon], line[colon+1:]
	for _, c := range name {
		if !token[c] {
			return nil, nil, false
		}
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f || c > 0x7f && !obsText {
			return nil, nil, false
		}
	}
	return name, bytes.Trim(value, " \t"), true
}

// token are the bytes of a token, RFC 9110, 5.6.2.
var token = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
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

// connection reads the value of a Connection or Proxy-Connection header. ok is
// false where it holds more than keep-alive or close.
func connection(value []byte) (closes, ok bool) {
	switch {
	case equalFold(value, "close"):
		return true, true
	case equalFold(value, "keep-alive"), len(value) == 0:
		return false, true
	}
	return false, false
}
