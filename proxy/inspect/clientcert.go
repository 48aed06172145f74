package inspect

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
	"time"
)

// Bounds of what is known of origins that ask for client certificates. Names are the
// clients' choice, and lists of authorities the origins'.
const (
	maxAsking      = 4096
	maxAuthorities = 64 << 10 // bytes
	askingLasts    = 7 * 24 * time.Hour
)

// asking are the hosts whose origins ask for a client certificate.
type asking struct {
	mu    sync.RWMutex
	hosts map[string]asked
}

type asked struct {
	at          time.Time
	authorities [][]byte // names, in DER; none: any
}

// Asked notes that the origin of host has asked for a client certificate, of one of
// authorities; none: of any. That exempts no client. The slice is kept.
func (e *Exceptions) Asked(host string, authorities [][]byte) {
	if e == nil {
		return
	}
	size := 0
	for _, name := range authorities {
		if size += len(name); size > maxAuthorities {
			authorities = nil
			break
		}
	}
	e.asking.mu.Lock()
	defer e.asking.mu.Unlock()
	if _, known := e.asking.hosts[host]; !known && len(e.asking.hosts) >= maxAsking {
		for other := range e.asking.hosts { // any
			delete(e.asking.hosts, other)
			break
		}
	}
	if e.asking.hosts == nil {
		e.asking.hosts = map[string]asked{}
	}
	e.asking.hosts[host] = asked{e.now(), authorities}
}

// Asking returns base, which clients are answered by, so that it asks for a client
// certificate as the origin of host does; nil if that does not.
func (e *Exceptions) Asking(host string, base *tls.Config) *tls.Config {
	if e == nil {
		return nil
	}
	e.asking.mu.RLock()
	x, ok := e.asking.hosts[host]
	e.asking.mu.RUnlock()
	if !ok || e.now().Sub(x.at) > askingLasts {
		return nil
	}
	cfg := base.Clone()
	cfg.ClientAuth = tls.RequestClientCert
	cfg.SessionTicketsDisabled = true // a session resumed asks for nothing
	if len(x.authorities) > 0 {
		cfg.ClientCAs = x509.NewCertPool()
		for _, name := range x.authorities { // of which crypto/tls sends the names alone
			cfg.ClientCAs.AddCert(&x509.Certificate{Raw: name, RawSubject: name})
		}
	}
	return cfg
}

// Acceptable reports whether a client's chain is of an authority that the origin of host
// has named.
func (e *Exceptions) Acceptable(host string, chain []*x509.Certificate) bool {
	e.asking.mu.RLock()
	x := e.asking.hosts[host]
	e.asking.mu.RUnlock()
	if len(x.authorities) == 0 {
		return len(chain) > 0
	}
	return slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
		return slices.ContainsFunc(x.authorities, func(name []byte) bool { return bytes.Equal(name, c.RawIssuer) })
	})
}
