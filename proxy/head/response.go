package head

import "bytes"

// A Response is the head of an answer.
type Response struct {
	Status int
	Line   []byte // the status line with its CRLF
	Fields Fields
	// Length of the body: -1 until the connection closes, -2 in chunks. It does
	// not take the request's method or the status into account.
	Length int64
	Close  bool // the connection is not to be used again
	Len    int  // of the head, with its empty line
}

// Lengths of bodies whose end is told otherwise.
const (
	UntilClose = -1
	Chunked    = -2
)

// ParseResponse parses the head at the start of b. ok is false where it is not
// complete, where it could be read in more than one way, and where Connection
// nominates headers; an upgrade may be offered, not made.
func ParseResponse(b []byte) (r Response, ok bool) {
	end, ok := r.parseLine(b)
	if !ok {
		return r, false
	}
	r.Length = UntilClose
	keep, lengths, encodings := b[7] == '1', 0, 0
	n := parseFields(b[end+1:], true, func(name, value []byte) bool {
		switch len(name) {
		case len("connection"):
			if equalFold(name, "connection") {
				closes, keeps, ok := connectionOptions(value)
				r.Close = r.Close || closes
				keep = keep || keeps
				return ok
			}
		case len("content-length"):
			if equalFold(name, "content-length") {
				lengths++
				r.Length, ok = parseLength(value)
				return ok && lengths == 1
			}
		case len("transfer-encoding"):
			if equalFold(name, "transfer-encoding") {
				encodings++
				return equalFold(value, "chunked") && encodings == 1
			}
		}
		return true
	})
	if n == 0 || lengths+encodings > 1 || encodings > 0 && b[7] == '0' {
		return r, false
	}
	if encodings > 0 {
		r.Length = Chunked
	}
	r.Close = r.Close || !keep
	r.Len = end + 1 + n
	r.Fields = Fields(b[end+1 : r.Len-2])
	return r, true
}

// ParseConnectResponse is ParseResponse for the answer to a CONNECT, of which
// nothing but Status, Line, Fields and Len matters: behind a 2xx the tunnel begins,
// whatever the head says of a body (RFC 9110, section 9.3.6).
func ParseConnectResponse(b []byte) (r Response, ok bool) {
	end, ok := r.parseLine(b)
	if !ok {
		return r, false
	}
	n := parseFields(b[end+1:], true, func(_, _ []byte) bool { return true })
	if n == 0 {
		return r, false
	}
	r.Len = end + 1 + n
	r.Fields = Fields(b[end+1 : r.Len-2])
	return r, true
}

// parseLine parses the status line, "HTTP/1.x NNN" with a reason and CRLF, whose
// line feed is b[end].
func (r *Response) parseLine(b []byte) (end int, ok bool) {
	end = bytes.IndexByte(b, '\n')
	if end < 13 || b[end-1] != '\r' || string(b[:7]) != "HTTP/1." || b[7] != '0' && b[7] != '1' || b[8] != ' ' {
		return 0, false
	}
	if b[12] != ' ' && end != 13 {
		return 0, false
	}
	for _, c := range b[9:12] {
		if c < '0' || c > '9' {
			return 0, false
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	for _, c := range b[12 : end-1] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, false
		}
	}
	r.Line = b[:end+1]
	return end, r.Status >= 100 && r.Status != 101
}

// connectionOptions reads the value of an answer's Connection header. ok is false
// where it nominates headers beside Keep-Alive and Upgrade.
func connectionOptions(value []byte) (closes, keeps, ok bool) {
	for more := true; more; {
		var option []byte
		option, value, more = bytes.Cut(value, []byte(","))
		switch option = bytes.Trim(option, " \t"); {
		case equalFold(option, "close"):
			closes = true
		case equalFold(option, "keep-alive"):
			keeps = true
		case len(option) > 0 && !equalFold(option, "upgrade"):
			return false, false, false
		}
	}
	return closes, keeps, true
}

// parseLength parses a Content-Length: digits only.
func parseLength(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
