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
	maxAsking             = 4096
	maxAuthorities        = 1024     // of a host
	maxAuthoritiesSize    = 64 << 10 // bytes, of a host
	maxAuthoritiesInTotal = 16 << 20 // bytes
	askingLasts           = 7 * 24 * time.Hour
)

// asking are the hosts whose origins ask for a client certificate.
type asking struct {
	mu    sync.RWMutex
	hosts map[string]asked
	size  int // of all of them
}

type asked struct {
	at          time.Time
	authorities [][]byte // names, in DER; none: any
	size        int      // of authorities, bytes
}

// Asked notes that the origin of host has asked for a client certificate, of one of
// authorities; none, or too many: of any. That exempts no client. The slice is kept.
func (e *Exceptions) Asked(host string, authorities [][]byte) {
	if e == nil {
		return
	}
	const header = 24 // of a slice
	size := 0
	for _, name := range authorities {
		size += header + len(name)
	}
	if size > maxAuthoritiesSize || len(authorities) > maxAuthorities {
		authorities, size = nil, 0
	}
	a := &e.asking
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drop(host)
	for other := range a.hosts { // any
		if len(a.hosts) < maxAsking && a.size+size <= maxAuthoritiesInTotal {
			break
		}
		a.drop(other)
	}
	if a.hosts == nil {
		a.hosts = map[string]asked{}
	}
	a.hosts[host] = asked{e.now(), authorities, size}
	a.size += size
}

// drop forgets a host, with mu locked.
func (a *asking) drop(host string) {
	a.size -= a.hosts[host].size
	delete(a.hosts, host)
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
