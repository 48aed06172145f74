package inspect

import (
	"encoding/binary"
	"errors"
	"slices"
)

// A Hello is what a TLS ClientHello (RFC 8446, 4.1.2) says of where the client
// wants to go.
type Hello struct {
	// ServerName is the server_name extension's host (RFC 6066), as sent; empty
	// where there is none.
	ServerName string
	// Protocols are the application protocols that the client offers, in its
	// order.
	Protocols []string
	// Encrypted is set where the client sent an encrypted_client_hello, or
	// something that looks like one: browsers do always. ServerName is the outer
	// one then.
	Encrypted bool
}

// HTTPProtocols are the application protocols of HTTP in TLS, the preferred one first.
var HTTPProtocols = []string{"h2", "http/1.1", "http/1.0"}

// HTTP reports whether the client can speak HTTP with these protocols, which it can
// where it names none.
func (h *Hello) HTTP() bool {
	return len(h.Protocols) == 0 || slices.ContainsFunc(h.Protocols, func(p string) bool { return slices.Contains(HTTPProtocols, p) })
}

// ErrShort says that a ClientHello has begun and not ended.
var ErrShort = errors.New("the ClientHello is not complete")

var (
	errNotTLS   = errors.New("no TLS handshake")
	errNotHello = errors.New("the TLS handshake does not begin with a ClientHello")
	errBadHello = errors.New("the ClientHello is malformed")
)

// MaxHello bounds a ClientHello. Those with post-quantum keys have 2 KB.
const MaxHello = 16 << 10

const (
	recordAlert      = 21
	recordHandshake  = 22
	messageHello     = 1
	extServerName    = 0
	extProtocols     = 16
	extEncrypted     = 0xfe0d
	extEncryptedSNI  = 0xffce // a draft before it, without any server name outside
	nameTypeHost     = 0
	recordHeader     = 5
	messageHeader    = 4
	maxRecordPayload = 16 << 10
)

// ParseHello parses the beginning of a client's stream. ErrShort asks for more
// of it, every other error says that it is no ClientHello that a server could
// answer. It never keeps b, and it does not panic whatever b is.
func ParseHello(b []byte) (*Hello, error) {
	message, err := helloMessage(b)
	if err != nil {
		return nil, err
	}
	return parseHello(message)
}

// helloMessage puts the first handshake message together, which may be cut into
// several records.
func helloMessage(b []byte) ([]byte, error) {
	var message []byte
	want := messageHeader
	for {
		if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
			return nil, errNotTLS
		}
		if len(b) < recordHeader {
			return nil, ErrShort
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		if size == 0 || size > maxRecordPayload {
			return nil, errNotTLS
		}
		payload := b[recordHeader:min(recordHeader+size, len(b))]
		complete := len(payload) == size
		if message == nil {
			message = payload
		} else {
			message = slices.Concat(message, payload)
		}
		if len(message) > 0 && message[0] != messageHello {
			return nil, errNotHello
		}
		if len(message) >= messageHeader {
			want = messageHeader + int(message[1])<<16 + int(message[2])<<8 + int(message[3])
			if want > MaxHello {
				return nil, errBadHello
			}
			if len(message) >= want {
				return message[messageHeader:want], nil
			}
		}
		if !complete {
			return nil, ErrShort
		}
		b = b[recordHeader+size:]
	}
}

// A cursor reads a message from its beginning. What it returns after a failure
// is empty.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

// number reads a big-endian number of n bytes.
func (c *cursor) number(n int) int {
	x := 0
	for _, b := range c.take(n) {
		x = x<<8 | int(b)
	}
	return x
}

// vector reads what a length of n bytes stands before.
func (c *cursor) vector(n int) cursor { return cursor{b: c.take(c.number(n))} }

// parseHello parses a ClientHello without its header.
func parseHello(message []byte) (*Hello, error) {
	h := &Hello{}
	c := cursor{b: message}
	c.take(2 + 32) // version, random
	c.vector(1)    // session
	c.vector(2)    // cipher suites
	c.vector(1)    // compression methods
	if c.bad {
		return nil, errBadHello
	}
	if len(c.b) == 0 {
		return h, nil // older than extensions
	}
	extensions := c.vector(2)
	if c.bad || len(c.b) > 0 {
		return nil, errBadHello
	}
	seen := map[int]bool{}
	for len(extensions.b) > 0 {
		kind := extensions.number(2)
		body := extensions.vector(2)
		if extensions.bad || seen[kind] {
			return nil, errBadHello
		}
		seen[kind] = true
		ok := true
		switch kind {
		case extServerName:
			ok = h.serverName(body)
		case extProtocols:
			ok = h.protocols(body)
		case extEncrypted, extEncryptedSNI:
			h.Encrypted = true
		}
		if !ok {
			return nil, errBadHello
		}
	}
	return h, nil
}

func (h *Hello) serverName(c cursor) bool {
	list := c.vector(2)
	if c.bad || len(c.b) > 0 || len(list.b) == 0 {
		return false
	}
	for len(list.b) > 0 {
		kind := list.number(1)
		name := list.vector(2)
		if list.bad || len(name.b) == 0 {
			return false
		}
		if kind != nameTypeHost {
			continue
		}
		if h.ServerName != "" {
			return false // two names are one too many to decide by
		}
		h.ServerName = string(name.b)
	}
	return true
}

func (h *Hello) protocols(c cursor) bool {
	list := c.vector(2)
	if c.bad || len(c.b) > 0 || len(list.b) == 0 {
		return false
	}
	for len(list.b) > 0 {
		name := list.vector(1)
		if list.bad || len(name.b) == 0 {
			return false
		}
		h.Protocols = append(h.Protocols, string(name.b))
	}
	return true
}
