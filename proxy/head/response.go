package head

import "bytes"

// A Response is the head of an answer. Its byte slices point into what was parsed.
type Response struct {
	Status int
	Line   []byte // the status line with its CRLF
	Fields Fields
	// Length of the body: UntilClose, or Chunked. It does not take the request's
	// method or the status into account; see HasBody.
	Length    int64
	Close     bool // the connection is not to be used again
	WebSocket bool // it switches to one, if Status is 101
	// Nominates is set if Connection names other fields; see Fields.Nominates.
	Nominates bool
	Len       int // of the head, with its empty line
}

// Lengths of bodies whose end is told otherwise.
const (
	UntilClose = -1
	Chunked    = -2
)

// HasBody reports whether the answer to a request of method may have a body
// (RFC 9110, section 6.4.1).
func (r *Response) HasBody(method []byte) bool {
	return string(method) != "HEAD" && r.Status >= 200 && r.Status != 204 && r.Status != 304
}

// ParseResponse parses the head at the start of b, as strictly as ParseRequest.
// The error is ErrIncomplete or an *Error. It does not allocate but for an error.
func ParseResponse(b []byte) (Response, error) { return parseResponse(b, true) }

// ParseConnectResponse is ParseResponse for the answer to a CONNECT, which has no body
// whatever its head says: behind a 2xx the tunnel begins (RFC 9110, section 9.3.6).
func ParseConnectResponse(b []byte) (Response, error) { return parseResponse(b, false) }

func parseResponse(b []byte, framed bool) (r Response, err error) {
	line, rest, err := cutLine(b)
	if err != nil {
		return r, err
	}
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' ||
		len(line) > 12 && line[12] != ' ' {
		return r, bad("it does not begin with a status line of HTTP/1")
	}
	for _, d := range line[9:12] {
		if !digit(d) {
			return r, bad("its status is not a number")
		}
		r.Status = r.Status*10 + int(d-'0')
	}
	if r.Status < 100 {
		return r, bad("its status is below 100")
	}
	if !isText(line[12:]) {
		return r, bad("its reason phrase has a control character")
	}
	r.Line = b[:len(line)+2]
	f, keep, upgrade := framing{}, line[7] == '1', false
	fields := 0
	for {
		if line, rest, err = cutLine(rest); err != nil {
			return r, err
		}
		if len(line) == 0 {
			break
		}
		if fields++; fields > MaxFields {
			return r, errFields
		}
		name, value, err := field(line)
		if err != nil {
			return r, err
		}
		if !framed {
			continue
		}
		if err := f.see(name, value); err != nil {
			return r, err
		}
		switch len(name) {
		case len("connection"):
			if equalFold(name, "connection") {
				o := readOptions(value)
				r.Close, keep = r.Close || o.close, keep || o.keep
				r.WebSocket, r.Nominates = r.WebSocket || o.upgrade, r.Nominates || o.others
			}
		case len("upgrade"):
			upgrade = upgrade || equalFold(name, "upgrade") && equalFold(value, "websocket")
		}
	}
	switch {
	case f.encodings > 0 && r.Line[7] == '0':
		return r, bad("it has a Transfer-Encoding in HTTP/1.0")
	case f.encodings > 0:
		r.Length = Chunked
	case f.lengths > 0:
		r.Length = f.length
	default:
		r.Length = UntilClose
	}
	r.Close = r.Close || !keep
	r.WebSocket = r.WebSocket && upgrade
	r.Len = len(b) - len(rest)
	r.Fields = Fields(b[len(r.Line) : r.Len-2])
	return r, nil
}

// Plausible reports whether b may be the beginning of an answer, so that nothing
// waits for the end of other protocols.
func Plausible(b []byte) bool {
	const version = "HTTP/1."
	n := min(len(b), len(version))
	return string(b[:n]) == version[:n]
}

// parseLength parses a Content-Length: digits only.
func parseLength(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if !digit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// options are what a Connection or Proxy-Connection header says.
type options struct{ close, keep, upgrade, others bool }

func readOptions(value []byte) (o options) {
	for more := true; more; {
		var option []byte
		option, value, more = bytes.Cut(value, []byte(","))
		switch option = bytes.Trim(option, " \t"); {
		case len(option) == 0:
		case equalFold(option, "close"):
			o.close = true
		case equalFold(option, "keep-alive"):
			o.keep = true
		case equalFold(option, "upgrade"):
			o.upgrade = true
		default:
			o.others = true
		}
	}
	return o
}
