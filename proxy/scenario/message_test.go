//go:build linux

package scenario

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An event is a part of an HTTP message: its head, some of its body, or its end.
// Chunks are decoded, since their boundaries may change on the way.
type event struct {
	kind eventKind
	text string // a head or a body as it came; of an end, the trailers
}

type eventKind int

const (
	headEvent eventKind = iota
	dataEvent
	endEvent
)

// A decoder turns the bytes of HTTP/1 messages in one direction into events. It
// is strict: what it does not know, it reports as an error.
type decoder struct {
	responses bool
	methods   *[]string // of the requests that were sent; shared with their decoder
	answered  int       // how many of methods have a final response
	heads     int
	raw       bool // the connection carries no messages any more
	state     decodeState
	left      int64 // of the body or the chunk
	trailers  string
	buf       []byte
}

type decodeState int

const (
	atHead decodeState = iota
	inLength
	untilClose
	atChunk
	inChunk
	afterChunk
	inTrailers
)

// between reports whether d is between two messages.
func (d *decoder) between() bool { return d.state == atHead && len(d.buf) == 0 }

func (d *decoder) write(p []byte) (list []event, err error) {
	d.buf = append(d.buf, p...)
	for {
		e, ok, err := d.next()
		if err != nil || !ok {
			return list, err
		}
		if e == nil {
			continue
		}
		if n := len(list); n > 0 && e.kind == dataEvent && list[n-1].kind == dataEvent {
			list[n-1].text += e.text
		} else {
			list = append(list, *e)
		}
	}
}

// line takes a line that ends in CR LF from the buffer.
func (d *decoder) line() (string, bool) {
	i := bytes.Index(d.buf, []byte("\r\n"))
	if i < 0 {
		return "", false
	}
	s := string(d.buf[:i])
	d.buf = d.buf[i+2:]
	return s, true
}

func (d *decoder) data(n int) *event {
	e := &event{dataEvent, string(d.buf[:n])}
	d.buf = d.buf[n:]
	return e
}

func (d *decoder) end() *event {
	e := &event{endEvent, d.trailers}
	d.state, d.trailers = atHead, ""
	return e
}

// next reports ok where it has made progress.
func (d *decoder) next() (e *event, ok bool, err error) {
	if d.raw || d.state == untilClose {
		if len(d.buf) == 0 {
			return nil, false, nil
		}
		return d.data(len(d.buf)), true, nil
	}
	switch d.state {
	case atHead:
		i := bytes.Index(d.buf, []byte("\r\n\r\n"))
		if i < 0 {
			return nil, false, nil
		}
		h := string(d.buf[:i+4])
		d.buf = d.buf[i+4:]
		d.heads++
		return &event{headEvent, h}, true, d.begin(h)
	case inLength, inChunk:
		if d.left == 0 {
			if d.state == inLength {
				return d.end(), true, nil
			}
			d.state = afterChunk
			return nil, true, nil
		}
		n := int(min(d.left, int64(len(d.buf))))
		if n == 0 {
			return nil, false, nil
		}
		d.left -= int64(n)
		return d.data(n), true, nil
	case atChunk:
		s, ok := d.line()
		if !ok {
			return nil, false, nil
		}
		size, _, _ := strings.Cut(s, ";")
		n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 62)
		if err != nil {
			return nil, false, fmt.Errorf("invalid chunk size %q", s)
		}
		d.left = int64(n)
		if d.state = inChunk; d.left == 0 {
			d.state = inTrailers
		}
		return nil, true, nil
	case afterChunk:
		s, ok := d.line()
		if ok && s != "" {
			return nil, false, fmt.Errorf("%q behind a chunk", s)
		}
		if ok {
			d.state = atChunk
		}
		return nil, ok, nil
	default: // inTrailers
		s, ok := d.line()
		if !ok {
			return nil, false, nil
		}
		if s == "" {
			return d.end(), true, nil
		}
		d.trailers += s + "\r\n"
		return nil, true, nil
	}
}

// begin sets the state behind the head h.
func (d *decoder) begin(h string) error {
	start, _, _ := strings.Cut(h, " ")
	method, status := start, 0
	if d.responses {
		method = "GET"
		if d.answered < len(*d.methods) {
			method = (*d.methods)[d.answered]
		}
		if status = statusOf(h); status == 0 {
			return fmt.Errorf("invalid status line in %q", h)
		}
		if status >= 200 || status == 101 {
			d.answered++
		}
	} else if d.methods != nil {
		*d.methods = append(*d.methods, method)
	}
	chunked := strings.EqualFold(field(h, "Transfer-Encoding"), "chunked")
	length := field(h, "Content-Length")
	switch {
	case d.responses && (status == 101 || method == "CONNECT" && status/100 == 2):
		d.raw = true
		return nil
	case d.responses && status < 200:
		return nil // another head follows
	case !d.responses && (method == "CONNECT" || field(h, "Upgrade") != ""):
		d.raw = true
		return nil
	case method == "HEAD" && d.responses, status == 204, status == 304:
		d.state, d.left = inLength, 0
	case chunked:
		d.state = atChunk
	case length != "":
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("invalid Content-Length %q", length)
		}
		d.state, d.left = inLength, n
	case d.responses:
		d.state = untilClose
	default:
		d.state, d.left = inLength, 0
	}
	return nil
}

// skip brings d to where h leaves it.
func (d *decoder) skip(h string) error {
	_, err := d.write([]byte(h))
	return err
}

// statusOf is the status code of a response's head, 0 where it has none.
func statusOf(h string) int {
	f := strings.SplitN(h, " ", 3)
	if len(f) < 2 || !strings.HasPrefix(h, "HTTP/1.") {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(f[1]))
	return n
}

// fields are a head's lines behind the first.
func fields(h string) []string {
	lines := strings.Split(strings.TrimSuffix(h, "\r\n\r\n"), "\r\n")
	return lines[1:]
}

// field is the value of the first field of a name, "" where there is none.
func field(h, name string) string {
	for _, l := range fields(h) {
		if n, v, ok := strings.Cut(l, ":"); ok && strings.EqualFold(n, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// connectionFields concern one connection only, so that they differ between
// HTTP/1.1 and HTTP/2.
var connectionFields = []string{"connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "upgrade"}

// canonical is what a head says apart from how HTTP/1.1 writes it down, for
// comparisons across versions: names are in lower case, fields in order of their
// names, and those of one connection are left out.
func canonical(h string) string {
	start, _, _ := strings.Cut(h, "\r\n")
	if status := statusOf(h); status != 0 {
		start = strconv.Itoa(status)
	}
	var list []string
	for _, l := range fields(h) {
		name, value, _ := strings.Cut(l, ":")
		name = strings.ToLower(name)
		if !slices.Contains(connectionFields, name) {
			list = append(list, name+": "+strings.TrimSpace(value))
		}
	}
	slices.Sort(list)
	return start + "\n" + strings.Join(list, "\n")
}

// withoutAdded removes the lines of got that a proxy may add: Via to requests (RFC
// 9110, 7.6.3), and whether the connection stays open.
func withoutAdded(got, want string) string {
	keep := strings.SplitAfter(strings.ToLower(want), "\r\n")
	var list []string
	for _, l := range strings.SplitAfter(got, "\r\n") {
		lower := strings.ToLower(l)
		added := strings.HasPrefix(lower, "via:") && statusOf(want) == 0 || lower == "connection: close\r\n" || lower == "connection: keep-alive\r\n"
		if !added || slices.Contains(keep, lower) {
			list = append(list, l)
		}
	}
	return strings.Join(list, "")
}

// withoutField removes a head's fields of a name.
func withoutField(h, name string) string {
	var list []string
	for _, l := range strings.SplitAfter(h, "\r\n") {
		if n, _, ok := strings.Cut(l, ":"); !ok || !strings.EqualFold(n, name) {
			list = append(list, l)
		}
	}
	return strings.Join(list, "")
}

// diff says where two heads differ; "" if they do not.
func diff(got, want string, versions bool) string {
	got = withoutAdded(got, want)
	if field(want, "Upgrade") != "" { // the proxy may write these anew
		for _, name := range []string{"Upgrade", "Connection"} {
			if !strings.EqualFold(field(got, name), field(want, name)) {
				return fmt.Sprintf("got %s %q, want %q", name, field(got, name), field(want, name))
			}
			got, want = withoutField(got, name), withoutField(want, name)
		}
	}
	if versions {
		got, want = canonical(got), canonical(want)
	}
	if got == want {
		return ""
	}
	return fmt.Sprintf("got head %q, want %q", got, want)
}
