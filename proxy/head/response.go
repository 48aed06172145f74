package head

import "strconv"

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
	status, err := strconv.ParseUint(string(line[9:12]), 10, 16)
	switch {
	case err != nil:
		return r, bad("its status is not a number")
	case status < 100:
		return r, bad("its status is below 100")
	case !text.all(line[12:]):
		return r, bad("its reason phrase has a control character")
	}
	r.Status, r.Line = int(status), b[:len(line)+2]
	var s reading
	n, err := s.fields(rest, func(name, value []byte) error {
		if !framed {
			return nil
		}
		return s.see(name, value)
	})
	if err != nil {
		return r, err
	}
	minor := line[7] - '0'
	if r.Length, err = s.body(minor, UntilClose); err != nil {
		return r, err
	}
	r.Close = s.close || minor == 0 && !s.keep
	r.WebSocket = s.upgrade && s.webSocket
	r.Nominates = s.nominates
	r.Len = len(r.Line) + n
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
