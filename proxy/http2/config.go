// Package http2 serves one connection of HTTP/2 (RFC 9113): requests, extended
// CONNECT (RFC 8441), and CONNECT whose directions end one by one, which net/http
// cannot do.
//
// It is a protocol package: it knows no policy, makes no records and dials
// nothing. Frames and header compression are golang.org/x/net's Framer and hpack.
//
// One goroutine reads a connection, one writes it, and each request has one for
// its Handler. A tunnel outlives its handler and needs none (see Stream.Tunnel).
// A fault of one request ends its stream only; faults of framing or header
// compression end the connection, since nothing after them can be read.
package http2

import (
	"cmp"
	"context"
	"time"

	"golang.org/x/net/http2/hpack"
)

// A Config is how to serve a connection. The zero value is complete.
type Config struct {
	// Context is the parent of every stream's context. Default: context.Background().
	Context context.Context
	// MaxStreams is how many streams the client may have open. Default: 1000.
	MaxStreams int
	// StreamWindow and ConnWindow bound the received bytes that wait to be read, of a
	// stream and of all streams together. Minimum: 65,535. Default: 256 KiB and 4 MiB.
	StreamWindow, ConnWindow int
	// ExtendedConnect advertises and allows extended CONNECT: requests with :protocol
	// (RFC 8441, 3). Default: they are malformed.
	ExtendedConnect bool
	// Stall bounds how long the client may move nothing of an answer, and of a
	// request's body before the answer has begun. Each byte renews it. Tunnels have no
	// such bound. It bounds the connection too: the client must take something of what the
	// proxy writes. Beneath TLS a wire.Steady does. Default: 5 minutes.
	Stall time.Duration
	// IdleTimeout closes a connection that has had no stream for this long.
	// Default: 3 minutes.
	IdleTimeout time.Duration
	// PingInterval is the silence after which the proxy pings the client. A client that
	// stays silent for PingTimeout after it is cut. Each ping wakes a sleeping device.
	// Default: 5 minutes and 1 minute.
	PingInterval, PingTimeout time.Duration
	// Idle is told whether the connection has no stream, when that changes, and at the
	// beginning. It must not block, nor call the Conn. Default: it is not told.
	Idle func(idle bool)
	// Malformed gets each request that breaks RFC 9113, section 8, or is too large
	// (ErrHeadTooLarge), in place of the Handler. The Request holds what could be read.
	// Malformed may answer; the stream is reset with PROTOCOL_ERROR when it returns, but
	// for one that was too large and has its whole answer.
	// Default: the stream is reset at once, or answered with 431.
	Malformed func(*Stream, *Request, error)
	// Panicked gets the value of a handler's panic, http.ErrAbortHandler excepted, on
	// the handler's goroutine, after the stream was reset with INTERNAL_ERROR. Default:
	// the panic is dropped.
	Panicked func(r *Request, fault any)
}

// A Handler serves a request. A stream that it leaves unfinished is reset with
// INTERNAL_ERROR, unless Stream.Tunnel has answered it. The Request is the
// handler's own.
type Handler func(*Stream, *Request)

// A Request is the head of a request. Requests that reach a Handler obey RFC
// 9113, section 8.
type Request struct {
	Method    string
	Scheme    string // in lower case; empty for CONNECT without Protocol
	Authority string // :authority, or Host where that is missing
	Path      string // "*", or begins with "/"; empty for CONNECT without Protocol
	Protocol  string // of an extended CONNECT
	// Fields are the header fields but Host, in the order they came in.
	Fields []hpack.HeaderField
	// Length of the body in bytes, -1 when it is not announced. CONNECT has -1.
	Length int64
}

func (c Config) withDefaults() Config {
	if c.Context == nil {
		c.Context = context.Background()
	}
	if c.Idle == nil {
		c.Idle = func(bool) {}
	}
	c.MaxStreams = cmp.Or(c.MaxStreams, 1000)
	c.StreamWindow = min(max(cmp.Or(c.StreamWindow, 256<<10), initialWindow), maxWindow)
	c.ConnWindow = min(max(cmp.Or(c.ConnWindow, 4<<20), initialWindow), maxWindow)
	c.Stall = cmp.Or(c.Stall, 5*time.Minute)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 3*time.Minute)
	c.PingInterval = cmp.Or(c.PingInterval, 5*time.Minute)
	c.PingTimeout = cmp.Or(c.PingTimeout, time.Minute)
	return c
}
