package head

import (
	"bytes"
	"fmt"
)

// Bounds on every head, on both ways and in both directions.
const (
	MaxBytes  = 64 << 10 // with its empty line
	MaxFields = 200
)

// An Error says what is wrong with a head. Its text is safe to log and repeats
// nothing of it.
type Error struct {
	Status int // for the client, where it is a request's
	Why    string
}

func (e *Error) Error() string { return e.Why }

func bad(format string, a ...any) error { return &Error{400, fmt.Sprintf(format, a...)} }

// A Check is what CheckRequest and CheckResponse find in a head that can be read
// in one way only.
type Check struct {
	Method []byte // of a request
	Status int    // of an answer
	// Length of the body: 0 where there is none, UntilClose and Chunked beside.
	// In an answer it takes neither the request's method nor the status into
	// account.
	Length int64
}

// End returns the length of the head at the start of b, with its empty line,
// also for those who take a bare LF for the end of a line; 0 where its end has
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

// CheckRequestLine checks a request line without its CRLF (RFC 9112, 3), also
// for methods and targets that ParseRequest does not take. The error is an *Error.
func CheckRequestLine(line []byte) (method []byte, err error) {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, ok := bytes.Cut(rest, []byte(" "))
	switch {
	case !isToken(method):
		return nil, bad("the method is no token")
	case !ok || len(target) == 0:
		return method, bad("the request line does not have three parts")
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return method, bad("the request target has a byte %q", c)
		}
	}
	switch {
	case !isVersion(version):
		return method, bad("the request line does not end in a version of HTTP")
	case string(version) != "HTTP/1.1" && string(version) != "HTTP/1.0":
		return method, &Error{505, "the version is neither HTTP/1.1 nor HTTP/1.0"}
	}
	for _, c := range method {
		if 'a' <= c && c <= 'z' { // methods have case, and none that is registered has lower
			return method, &Error{501, "the method is in lower case"}
		}
	}
	return method, nil
}

func isVersion(b []byte) bool {
	return len(b) == 8 && string(b[:5]) == "HTTP/" && digit(b[5]) && b[6] == '.' && digit(b[7])
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func isToken(b []byte) bool {
	for _, c := range b {
		if !token[c] {
			return false
		}
	}
	return len(b) > 0
}

// CheckRequest checks the request head b, which is complete: that no two
// recipients can differ about where its parts and its body end. It refuses bare
// CR and LF, folded lines, white space round names, control characters, two
// lengths, and encodings but chunked. Method is set beside an error where it is
// known. The error is an *Error.
func CheckRequest(b []byte) (c Check, err error) {
	line, rest, err := cutLine(b)
	if err != nil {
		c.Method, _, _ = bytes.Cut(b, []byte(" "))
		if !isToken(c.Method) {
			c.Method = nil
		}
		return c, err
	}
	if c.Method, err = CheckRequestLine(line); err != nil {
		return c, err
	}
	f, hosts := framing{}, 0
	err = eachField(rest, func(name, value []byte) error {
		switch {
		case equalFold(name, "host"):
			if hosts++; hosts > 1 {
				return bad("it has two Host headers")
			}
			if !isHost(value) {
				return bad("the Host header is none")
			}
		case equalFold(name, "expect"):
			if !equalFold(value, "100-continue") {
				return &Error{417, "it expects what this proxy does not know"}
			}
		}
		return f.see(name, value)
	})
	if err != nil {
		return c, err
	}
	v11 := bytes.HasSuffix(line, []byte("1"))
	switch {
	case f.encodings > 0 && !v11:
		return c, bad("it has a Transfer-Encoding in HTTP/1.0")
	case v11 && hosts == 0 && string(c.Method) != "CONNECT":
		return c, bad("it has no Host header")
	}
	if c.Length = f.length; f.encodings > 0 {
		c.Length = Chunked
	}
	return c, nil
}

// CheckResponse is CheckRequest for an answer. It takes a bare LF for the end of
// a line, as old origins send it, but nothing else that is doubtful.
func CheckResponse(b []byte) (c Check, err error) {
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' ||
		len(line) > 12 && line[12] != ' ' {
		return c, bad("it does not begin with a status line of HTTP/1")
	}
	for _, d := range line[9:12] {
		if !digit(d) {
			return c, bad("its status is no number")
		}
		c.Status = c.Status*10 + int(d-'0')
	}
	if c.Status < 100 {
		return c, bad("its status is below 100")
	}
	if !isText(line[12:]) {
		return c, bad("its reason phrase has a control character")
	}
	var f framing
	if err := eachFieldLenient(rest, f.see); err != nil {
		return c, err
	}
	switch {
	case f.encodings > 0 && line[7] == '0':
		return c, bad("it has a Transfer-Encoding in HTTP/1.0")
	case f.encodings > 0:
		c.Length = Chunked
	case f.lengths > 0:
		c.Length = f.length
	default:
		c.Length = UntilClose
	}
	return c, nil
}

// Plausible reports whether b may be the beginning of an answer, so that nobody
// waits for the end of what is none.
func Plausible(b []byte) bool {
	const version = "HTTP/1."
	n := min(len(b), len(version))
	return string(b[:n]) == version[:n]
}

// framing is what header lines say about a body's length.
type framing struct {
	lengths, encodings int
	length             int64
}

func (f *framing) see(name, value []byte) error {
	var ok bool
	switch {
	case equalFold(name, "content-length"):
		f.lengths++
		if f.length, ok = parseLength(value); !ok {
			return bad("its Content-Length is no number")
		}
	case equalFold(name, "transfer-encoding"):
		f.encodings++
		if !equalFold(value, "chunked") {
			return &Error{501, "its Transfer-Encoding is not chunked"}
		}
	}
	switch {
	case f.lengths > 1:
		return bad("it has two Content-Length headers")
	case f.encodings > 1:
		return bad("it has two Transfer-Encoding headers")
	case f.lengths > 0 && f.encodings > 0:
		return bad("it has both Content-Length and Transfer-Encoding")
	}
	return nil
}

// cutLine cuts the first line off, which must end in CRLF.
func cutLine(b []byte) (line, rest []byte, err error) {
	line, rest, _ = bytes.Cut(b, []byte("\n"))
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1], rest, nil
	}
	return nil, nil, bad("a line ends in a bare LF")
}

func eachField(b []byte, see func(name, value []byte) error) error {
	for n := 0; ; n++ {
		line, rest, err := cutLine(b)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		if err := field(line, n, see); err != nil {
			return err
		}
		b = rest
	}
}

func eachFieldLenient(b []byte, see func(name, value []byte) error) error {
	for n := 0; ; n++ {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
			return nil
		}
		if err := field(line, n, see); err != nil {
			return err
		}
		b = rest
	}
}

// field checks a header line, the one with index n.
func field(line []byte, n int, see func(name, value []byte) error) error {
	if n == MaxFields {
		return &Error{431, fmt.Sprintf("it has more than %d header lines", MaxFields)}
	}
	if line[0] == ' ' || line[0] == '\t' {
		return bad("a header line is folded")
	}
	name, value, ok := cut(line, true)
	if !ok {
		return bad("a header line is malformed, or has a control character")
	}
	return see(name, value)
}

func isText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isHost reports whether b has only bytes that a host, literal or port may have
// (RFC 3986, 3.2.2), so that it is the same to everyone who reads it.
func isHost(b []byte) bool {
	for _, c := range b {
		if !hostByte[c] {
			return false
		}
	}
	return true
}

var hostByte = func() (t [256]bool) {
	for _, c := range []byte("!$%&'()*+,-.:;=[]_~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()
