package inspect

import (
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// A Hello is what a TLS ClientHello (RFC 8446, 4.1.2) says of where the client
// wants to go.
type Hello struct {
	// ServerName is the server_name extension's host (RFC 6066), as sent; empty
	// if there is none.
	ServerName string
	// Protocols are the application protocols that the client offers, in its
	// order.
	Protocols []string
	// Encrypted is set if the client sent an encrypted_client_hello, or something that
	// looks like one: browsers always do. ServerName is the outer one then.
	Encrypted bool
}

// HTTPProtocols are the application protocols of HTTP in TLS, the preferred one first.
var HTTPProtocols = []string{"h2", "http/1.1", "http/1.0"}

// HTTP reports whether the client can speak HTTP with these protocols, which it can
// if it names none.
func (h *Hello) HTTP() bool {
	return len(h.Protocols) == 0 ||
		slices.ContainsFunc(h.Protocols, func(p string) bool { return slices.Contains(HTTPProtocols, p) })
}

// ErrShort says that a ClientHello has begun and not ended.
var ErrShort = errors.New("the ClientHello is not complete")

var (
	errNotTLS   = errors.New("no TLS handshake")
	errNotHello = errors.New("the TLS handshake does not begin with a ClientHello")
	errBadHello = errors.New("the ClientHello is malformed")
)

// MaxHello bounds a ClientHello. Those with post-quantum keys have 2 KB.
const MaxHello = 64 << 10

const (
	recordFirst      = 20 // change_cipher_spec
	recordAlert      = 21
	recordHandshake  = 22
	recordLast       = 24 // heartbeat (RFC 6520)
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
// of it; with any other error it is not a ClientHello that a server could answer.
// It never keeps b, and it does not panic whatever b is.
func ParseHello(b []byte) (*Hello, error) {
	if len(b) == 1 && MayBeTLS(b) {
		return nil, ErrShort
	}
	message, err := helloMessage(b)
	if err != nil {
		return nil, err
	}
	h := &Hello{}
	if !h.parse(message) {
		return nil, errBadHello
	}
	return h, nil
}

// helloMessage puts the first handshake message together, which may be cut into
// several records, and returns it without its header.
func helloMessage(b []byte) ([]byte, error) {
	var message []byte
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
		b = b[recordHeader:]
		n := min(size, len(b))
		if message == nil {
			message = b[:n:n] // copied only if there is more in another record
		} else {
			message = append(message, b[:n]...)
		}
		if len(message) > 0 && message[0] != messageHello {
			return nil, errNotHello
		}
		if len(message) >= messageHeader {
			want := messageHeader + int(message[1])<<16 + int(message[2])<<8 + int(message[3])
			if want > MaxHello {
				return nil, errBadHello
			}
			if len(message) >= want {
				return message[messageHeader:want], nil
			}
		}
		if n < size {
			return nil, ErrShort
		}
		b = b[n:]
	}
}

// parse parses a ClientHello without its header, and reports whether it is valid.
func (h *Hello) parse(s cryptobyte.String) bool {
	var skipped, extensions cryptobyte.String
	if !s.Skip(2+32) || // version, random
		!s.ReadUint8LengthPrefixed(&skipped) || // session
		!s.ReadUint16LengthPrefixed(&skipped) || // cipher suites
		!s.ReadUint8LengthPrefixed(&skipped) { // compression methods
		return false
	}
	if s.Empty() {
		return true // older than extensions
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return false
	}
	seen := map[uint16]bool{}
	for !extensions.Empty() {
		var kind uint16
		var body cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&body) ||
			seen[kind] || !h.extension(kind, body) {
			return false
		}
		seen[kind] = true
	}
	return true
}

// extension takes an extension over, and reports whether it is valid.
func (h *Hello) extension(kind uint16, body cryptobyte.String) bool {
	switch kind {
	case extEncrypted, extEncryptedSNI:
		h.Encrypted = true
		return true
	case extServerName, extProtocols:
	default:
		return true
	}
	var list, name cryptobyte.String
	if !body.ReadUint16LengthPrefixed(&list) || !body.Empty() || list.Empty() {
		return false
	}
	for !list.Empty() {
		if kind == extProtocols {
			if !list.ReadUint8LengthPrefixed(&name) || name.Empty() {
				return false
			}
			h.Protocols = append(h.Protocols, string(name))
			continue
		}
		var of uint8
		if !list.ReadUint8(&of) || !list.ReadUint16LengthPrefixed(&name) || name.Empty() {
			return false
		}
		if of == nameTypeHost {
			if h.ServerName != "" {
				return false // two names are one too many to decide by
			}
			h.ServerName = string(name)
		}
	}
	return true
}
