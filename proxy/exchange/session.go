package exchange

import (
	"net/netip"

	"espalier/policy"
)

// A Session is an intercepted CONNECT, and what the requests inside it have from
// it: the client, the user and the destination.
type Session struct {
	*Exchange      // of the CONNECT
	Page      bool // it is denied, and the requests inside are shown why
	Secure    bool // TLS was answered
	// Accepted is called when a request comes, since the client has accepted the
	// certificate then.
	Accepted func()
}

// named is the destination that the client believes to speak to.
func (s *Session) named() policy.Target {
	if s.Name != (policy.Target{}) {
		return s.Name
	}
	return s.Target
}

// Host is the host that the client believes to speak to.
func (s *Session) Host() string { return s.named().Host }

// Client is the client's address.
func (s *Session) Client() netip.Addr { return s.Record.Client }

// Scheme is that of the requests inside.
func (s *Session) Scheme() string {
	if s.Secure {
		return "https"
	}
	return "http"
}
