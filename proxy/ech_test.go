package proxy

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"espalier/policy"
)

// hidden is a destination that takes encrypted ClientHellos (RFC 9849) for its names, behind
// public.example.
type hidden struct {
	port    uint16
	roots   *x509.CertPool
	configs []byte // for clients
	reached atomic.Int64
}

func newHidden(t *testing.T) *hidden {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	config := echConfig(key.PublicKey().Bytes(), "public.example")
	cert := certificate(t, func(c *x509.Certificate) {
		c.DNSNames = []string{"public.example", "www.apple.com", "*.hidden.example"}
	})
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	h := &hidden{roots: x509.NewCertPool()}
	h.roots.AddCert(leaf)
	var list cryptobyte.Builder
	list.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(config) })
	h.configs = list.BytesOrPanic()
	cfg := &tls.Config{
		Certificates:             []tls.Certificate{cert},
		EncryptedClientHelloKeys: []tls.EncryptedClientHelloKey{{Config: config, PrivateKey: key.Bytes(), SendAsRetry: true}},
	}
	h.port = newOrigin(t, func(c net.Conn) {
		conn := tls.Server(c, cfg)
		if _, err := readHead(bufio.NewReader(conn)); err != nil {
			return
		}
		h.reached.Add(1)
		name := conn.ConnectionState().ServerName
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(name), name)
	}).Port()
	return h
}

// echConfig is an ECHConfig (RFC 9849, section 4) with an X25519 key.
func echConfig(key []byte, public string) []byte {
	var b cryptobyte.Builder
	b.AddUint16(0xfe0d)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(1)
		b.AddUint16(0x20) // DHKEM(X25519, HKDF-SHA256)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(key) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(1) // HKDF-SHA256
			b.AddUint16(1) // AES-128-GCM
		})
		b.AddUint8(32)
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(public)) })
		b.AddUint16(0) // extensions
	})
	return b.BytesOrPanic()
}

func (h *hidden) at(host string) string { return fmt.Sprintf("%s:%d", host, h.port) }

// get asks a name for its page on a CONNECT to another, with an encrypted ClientHello if ech is
// set.
func (h *hidden) get(r *rig, connect, name string, roots *x509.CertPool, ech bool) error {
	c := r.connected(h.at(connect))
	defer c.Close()
	cfg := &tls.Config{ServerName: name, RootCAs: roots}
	if ech {
		cfg.EncryptedClientHelloConfigList = h.configs
	}
	conn := c.secure(cfg)
	if err := conn.Handshake(); err != nil {
		return err
	}
	if conn.ConnectionState().ECHAccepted != ech {
		return errors.New("ECH was not accepted")
	}
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", h.at(name))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return err
}

func (h *hidden) setup() setup {
	return setup{roots: h.roots, hosts: map[string]string{"*.example": "127.0.0.1", "www.apple.com": "127.0.0.1"}}
}

// In a tunnel the outer name of an encrypted ClientHello is judged, as any name in TLS.
func TestEncryptedHelloInTunnels(t *testing.T) {
	h := newHidden(t)
	denied := []policy.Rule{{Name: "denied", Then: "deny", When: policy.When{Hosts: []string{"public.example"}}}}
	for _, x := range []struct {
		name, connect string
		rules         []policy.Rule
		action        policy.Action
		rule          string
		service       string
	}{
		{"a free outer name", "a.hidden.example", nil, policy.Tunnel, policy.RuleDefault, "other"},
		{"a denied outer name", "a.hidden.example", denied, policy.Deny, "denied", "other"},
		{"a free outer name behind Apple", "www.apple.com", nil, policy.Tunnel, policy.RuleDefault, "other"},
		{"a denied outer name behind Apple", "www.apple.com", denied, policy.Deny, "denied", ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
				cfg := h.setup()
				cfg.rules = x.rules
				r := start(t, cfg)
				if err := h.get(r, x.connect, "a.hidden.example", h.roots, true); (err == nil) != (x.action == policy.Tunnel) {
					t.Error(err)
				}
				rec := r.record()
				if rec.Action != x.action || rec.Rule != x.rule || rec.Host != x.connect || x.service != "" && rec.Service != x.service {
					t.Errorf("record %+v", rec)
				}
			})
		})
	}
}

// The proxy answers an encrypted ClientHello by its outer name. Clients fall back to one that
// is not encrypted, or fail. Neither exempts anything, however often it happens, and nor does a
// client that refuses the certificate for the outer name.
func TestEncryptedHello(t *testing.T) {
	h := newHidden(t)
	cfg := h.setup()
	cfg.inspect = policy.InspectAll
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, cfg)
		var passed atomic.Int64
		r.exceptions.Now = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
		if err := h.get(r, "d.hidden.example", "d.hidden.example", r.trusted(), false); err != nil {
			t.Fatal(err) // the client trusts the CA
		}
		h.reached.Store(0)
		hosts := []string{"a.hidden.example", "b.hidden.example", "c.hidden.example"}
		for round := range 3 {
			for _, host := range hosts {
				err := h.get(r, host, host, r.trusted(), true)
				if rejected, ok := errors.AsType[*tls.ECHRejectionError](err); !ok || len(rejected.RetryConfigList) > 0 {
					t.Fatalf("round %d, %s: %v", round, host, err)
				}
			}
			passed.Add(int64(time.Minute))
		}
		if n := h.reached.Load(); n != 0 {
			t.Errorf("%d requests came through", n)
		}
		for _, host := range hosts { // without ECH, and trusting the proxy's CA alone
			if err := h.get(r, host, host, r.trusted(), false); err != nil {
				t.Errorf("%s falls back: %v", host, err)
			}
		}
		if list := r.exceptions.List(); len(list) > 0 {
			t.Errorf("exceptions %+v", list)
		}
		for range 2 { // a certificate that is refused exempts neither the outer name nor the CONNECT's
			if err := h.get(r, hosts[0], hosts[0], h.roots, true); err == nil {
				t.Error("a client that knows its server's certificate accepts another")
			}
			await(t, "the end of the session", func() bool { return r.server.openTunnels() == 0 })
		}
		if list := r.exceptions.List(); len(list) > 0 {
			t.Errorf("exceptions %+v", list)
		}
	})
}
