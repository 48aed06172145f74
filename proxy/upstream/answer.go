package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"espalier/proxy/egress"
	"espalier/proxy/head"
	"espalier/proxy/refusal"
)

// maxInterim bounds the 1xx answers before a final one.
const maxInterim = 10

// A BadAnswer says that an origin's answer is not valid HTTP, or can be read in two
// ways.
type BadAnswer struct{ error }

func (e *BadAnswer) Error() string          { return "malformed answer: " + e.error.Error() }
func (e *BadAnswer) Unwrap() error          { return e.error }
func (*BadAnswer) Refusal() refusal.Refusal { return refusal.BadReply }

var (
	errLongAnswer  = fmt.Errorf("its head is longer than %d bytes", head.MaxBytes)
	errManyInterim = fmt.Errorf("it has more than %d interim answers", maxInterim)
	errNoHTTP      = errors.New("it is not HTTP/1")
	errSwitched    = errors.New("it switches to a protocol that was not asked for")
)

// A SlowReply says that an origin did not begin to answer in time.
type SlowReply struct{ Err error }

func (e *SlowReply) Error() string          { return "no answer to the request in time" }
func (e *SlowReply) Unwrap() error          { return e.Err }
func (*SlowReply) Refusal() refusal.Refusal { return refusal.SlowReply }

// Persists reports whether the origin's connection may take another request once the
// answer a has been read.
func (r *Request) Persists(a head.Response) bool {
	switch {
	case a.Close:
		return false
	case a.Status == http.StatusNoContent: // with a length, it may be followed by what is no answer
		return a.Length == 0 || a.Length == head.UntilClose
	case !a.HasBody(r.Head.Method):
		return true
	}
	return a.Length != head.UntilClose
}

// An UploadError is an error of a request's body on its way from the client.
type UploadError struct{ Err error }

func (e *UploadError) Error() string { return "read the request body: " + e.Err.Error() }
func (e *UploadError) Unwrap() error { return e.Err }

// Refusal implements refusal.Refuser.
func (e *UploadError) Refusal() refusal.Refusal {
	if refusal.IsTimeout(e.Err) {
		return refusal.SlowBody
	}
	return refusal.Body
}

// ReadAnswer reads the head of the final answer from o, with more where that is not
// enough, and has interim pass interim ones on. 101 is final. What the answer points
// into stays valid until o is read again.
func (r *Request) ReadAnswer(o *egress.Origin, more func() error, interim func(head.Response) error) (a head.Response, err error) {
	if o.Parent != nil {
		defer o.Parent.Await()()
	}
	interims := 0
	for scanned := 0; ; {
		b := o.Unread()
		if len(b) > 0 && !head.Plausible(b) {
			return a, &BadAnswer{errNoHTTP}
		}
		end := head.End(b, scanned)
		scanned = len(b)
		switch {
		case end > head.MaxBytes, end == 0 && len(b) > head.MaxBytes:
			return a, &BadAnswer{errLongAnswer}
		case end == 0:
			if err := more(); err == io.EOF && len(b) > 0 {
				return a, io.ErrUnexpectedEOF
			} else if err != nil {
				return a, err
			}
			continue
		}
		if a, err = head.ParseResponse(b[:end]); err != nil {
			return a, &BadAnswer{err}
		}
		switch {
		case a.Status == http.StatusSwitchingProtocols && !(r.Head.WebSocket && a.WebSocket):
			return a, &BadAnswer{errSwitched}
		case a.Status >= 200, a.Status == http.StatusSwitchingProtocols:
			return a, r.judge(o, a)
		}
		if interims++; interims > maxInterim {
			return a, &BadAnswer{errManyInterim}
		}
		r.answered = true
		if err := interim(a); err != nil {
			return a, err
		}
		o.Use(end)
		scanned = 0
	}
}

// judge returns an error for a final answer that the client must not get.
func (r *Request) judge(o *egress.Origin, a head.Response) error {
	switch {
	case a.Status == http.StatusProxyAuthRequired && o.Parent != nil: // the client does not know its password
		return &egress.ParentError{Parent: o.Parent.String(), Status: a.Status}
	case a.Status == http.StatusRequestTimeout && o.Reused && r.Repeatable(): // it has waited for too long (RFC 9110, section 15.5.9)
		o.Use(len(o.Unread()))
		return io.ErrUnexpectedEOF
	}
	return nil
}

// PassesOn reports whether a field of an answer's head goes on to the client, from
// which it keeps what concerns the connection to the origin.
func PassesOn(a head.Response, f head.Field) bool {
	switch {
	case a.Status == http.StatusSwitchingProtocols && f.Upgrades():
	case f.HopByHop(), a.Nominates && a.Fields.Nominates(f.Name):
		return false
	case f.Is("content-length"), f.Is("transfer-encoding"): // against RFC 9110, 8.6
		return a.Status >= 200 && a.Status != http.StatusNoContent
	}
	return true
}
