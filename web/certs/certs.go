// Package certs holds the certificates by which Espalier's own listeners speak
// TLS: the proxy's, the public ones and the console's. They come from an
// authority by ACME, from files, or are signed by Espalier itself.
//
// Interception has certificates of its own, see proxy/inspect.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Certs are the certificates in force. It is safe for concurrent use, and a
// prometheus.Collector.
type Certs struct {
	data     string
	log      *zap.Logger
	obtained *prometheus.CounterVec // by result

	mu      sync.Mutex // of Apply and Close
	closed  bool
	current atomic.Pointer[inForce]
}

// inForce is what Apply has put into force.
type inForce struct {
	cfg   Config
	names []string         // of what Espalier signs by itself
	files *tls.Certificate // nil: none are configured
	acme  *authority       // nil: none is configured
	own   *tls.Certificate // nil where there are files, or no names
}

// New returns certificates whose state is kept in the directory data. Apply must
// be called before anything else, and Close at the end.
func New(data string, log *zap.Logger) *Certs {
	c := &Certs{data: data, log: log, obtained: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "espalier_tls_certificates_total",
		Help: "Attempts to obtain or renew a certificate by ACME, by result.",
	}, []string{"result"})}
	c.obtained.WithLabelValues("ok")
	c.obtained.WithLabelValues("failed")
	return c
}

// Apply puts a valid Config into force, and reads its files. names are what a
// certificate that Espalier signs by itself is good for; without any there is none,
// and without cfg.Enabled nothing is served with TLS. After an error, which
// begins with the key, everything is as it was. It does not wait for an
// authority: until there is a certificate of it, Espalier's own serves.
func (c *Certs) Apply(cfg Config, names []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apply(cfg, names)
}

// apply is Apply, with mu held.
func (c *Certs) apply(cfg Config, names []string) error {
	if c.closed {
		return nil
	}
	next := &inForce{cfg: cfg, names: names}
	var old *authority
	if before := c.current.Load(); before != nil {
		old = before.acme
		if old != nil && reflect.DeepEqual(before.cfg.ACME, cfg.ACME) {
			next.acme = old
		}
	}
	var err error
	switch {
	case cfg.Files.Cert != "":
		next.acme = nil
		next.files, err = ReadFiles(cfg.Files)
	case len(cfg.ACME.Domains) > 0 && next.acme == nil:
		if next.acme, err = c.newAuthority(cfg.ACME); err != nil {
			return fmt.Errorf("acme%w", err)
		}
	}
	if err == nil && next.files == nil && len(names) > 0 {
		next.own, err = ownCertificate(c.data, names, time.Now())
	}
	if err != nil {
		if next.acme != nil && next.acme != old {
			next.acme.close()
		}
		return err
	}
	if next.acme != nil && next.acme != old {
		next.acme.manage() // before it is asked, so that what is kept serves without a gap
	}
	c.current.Store(next)
	if old != nil && old != next.acme {
		old.close()
	}
	return nil
}

// again does what Apply does with what is in force.
func (c *Certs) again() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.current.Load()
	return c.apply(f.cfg, f.names)
}

// Close ends what goes on in the background. The certificates stay in force, and
// Apply does nothing any more.
func (c *Certs) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.current.Load(); !c.closed && f != nil && f.acme != nil {
		f.acme.close()
	}
	c.closed = true
}

// ownInterval is how often Keep looks whether Espalier's own certificate lasts.
const ownInterval = time.Hour

// Keep renews Espalier's own certificate, and warns of what is wrong with others,
// once a day, until ctx ends.
func (c *Certs) Keep(ctx context.Context) {
	tick := time.NewTicker(ownInterval)
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%24 == 0 {
			for _, s := range c.Status() {
				for _, text := range s.Warnings {
					c.log.Warn(text)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := c.again(); err != nil {
			c.log.Error("the certificate of the listeners was not renewed", zap.Error(err))
		}
	}
}

// TLS returns what a listener speaks TLS by, with the application protocols in
// order of preference. It follows Apply. Whoever negotiates another protocol is
// an authority that looks for its challenge, and has seen it.
func (c *Certs) TLS(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     append(protocols, acmez.ACMETLS1Protocol),
		GetCertificate: c.get,
	}
}

// get is tls.Config.GetCertificate.
func (c *Certs) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	f := c.current.Load()
	challenge := len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol
	switch {
	case f.acme != nil:
		cert, err := f.acme.magic.GetCertificate(hello)
		if err == nil || challenge {
			return cert, err
		}
	case challenge:
		return nil, errors.New("no challenge is expected")
	case f.files != nil:
		return f.files, nil
	}
	if f.own == nil {
		return nil, errors.New("there is no certificate")
	}
	return f.own, nil
}

// Challenge answers what an authority asks by HTTP, and passes on everything
// else.
func (c *Certs) Challenge(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := c.current.Load().acme; a != nil && a.issuer.HandleHTTPChallenge(w, r) {
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ErrNotACME says that there is no authority to obtain a certificate from.
var ErrNotACME = errors.New("tls.acme has no domains: there is no authority to ask")

// Renew obtains the certificates anew from the authority, with new keys, however
// long those in force are good. With revoke these are revoked then, as ones
// whose key others may know. Connections go on, and those in force serve until
// others are there.
func (c *Certs) Renew(ctx context.Context, revoke bool) error {
	a := c.current.Load().acme
	if a == nil {
		return ErrNotACME
	}
	return a.renew(ctx, revoke)
}

// ReadFiles reads a certificate and its key. Errors begin with the key.
func ReadFiles(f Files) (*tls.Certificate, error) {
	chain, err := os.ReadFile(f.Cert)
	if err != nil {
		return nil, fmt.Errorf("files.cert: %w", err)
	}
	key, err := os.ReadFile(f.Key)
	if err != nil {
		return nil, fmt.Errorf("files.key: %w", err)
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("files.cert: %s and %s: %w", f.Cert, f.Key, err)
	}
	return &cert, nil
}

// pool reads a PEM file of CAs.
func pool(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: has no certificate in PEM", name)
	}
	return roots, nil
}
