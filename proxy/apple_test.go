package proxy

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"espalier/policy"
	"espalier/policy/auth"
	"espalier/policy/catalog"
)

// certificate is one that no authority has signed, for an hour unless changed.
func certificate(t *testing.T, changes ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	for _, change := range changes {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// appleOrigins listens on every TCP port of the catalogue at one loopback
// address, TLS everywhere but on port 80. Ports that this user may not take are
// missing.
func appleOrigins(t *testing.T, cert tls.Certificate) (addr string, ports map[uint16]bool) {
	t.Helper()
	addr, ports = fmt.Sprintf("127.77.%d.%d", os.Getpid()>>8&0xff, os.Getpid()&0xff), map[uint16]bool{}
	for _, row := range catalog.Embedded() {
		for _, port := range row.Ports {
			if !row.TCP() || ports[port] {
				continue
			}
			l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", addr, port))
			if err != nil {
				t.Logf("rows with port %d are checked by the decision only: %v", port, err)
				continue
			}
			ports[port] = true
			if port == 80 {
				serveOrigin(t, l, func(c net.Conn) {
					_, _ = c.Read(make([]byte, 4096))
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\napple")
				})
			} else {
				serveOrigin(t, tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}}), func(c net.Conn) {
					_, _ = io.WriteString(c, "apple")
				})
			}
		}
	}
	return addr, ports
}

// A place is where a row of the catalogue leads.
type place struct {
	host string
	port uint16
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.host, p.port) }

// applePlaces are those of all rows.
func applePlaces(t *testing.T) (places []place) {
	t.Helper()
	for _, row := range catalog.Embedded() {
		host := row.Host
		if name, ok := strings.CutPrefix(host, "*."); ok {
			host = "any.name." + name
		}
		for _, port := range row.Ports {
			if p := (place{host, port}); !slices.Contains(places, p) {
				places = append(places, p)
			}
		}
	}
	if len(places) < 150 {
		t.Fatalf("%d places", len(places))
	}
	return places
}

// everyHost is a list that has all hosts.
type everyHost struct{}

func (everyHost) Match(host string) (string, bool) { return host, true }
func (everyHost) MatchURL(host string, _ uint16, path string) (string, bool) {
	return host + path, true
}
func (everyHost) Missing() bool { return false }

// everythingOn denies, inspects, redirects and asks for a sign-in wherever that is possible.
func everythingOn() setup {
	return setup{
		users: map[string]string{"alice": "secret"}, auth: auth.Config{LDAP: noDirectory},
		inspect: policy.InspectAll, denyPage: true, knownExempt: true, unknown: policy.UnknownDeny,
		lists: map[string]policy.HostList{"all": everyHost{}},
		presets: policy.Presets{
			SafeSearch: []string{"google", "bing", "duckduckgo", "brave", "ecosia", "pixabay", "yandex"}, YouTube: policy.YouTubeStrict,
			GoogleDomains: []string{"school.example"}, Microsoft: policy.Microsoft{Policy: "tenant:policy"},
		},
		rules: []policy.Rule{
			{Name: "alice-only", When: policy.When{Users: []string{"alice"}}, Then: "allow"},
			{Name: "inspect-https", When: policy.When{Ports: []uint16{443}}, Then: "inspect"},
			{Name: "listed", When: policy.When{Lists: []string{"all"}}, Then: "deny"},
			{Name: "nothing-else", Then: "deny"},
		},
	}
}

// Whatever is configured, no row of the catalogue meets a request to sign in or
// another certificate than its own: not where a client sends credentials, not from
// where passwords are guessed, and not while nobody can tell who is who.
func TestAppleIsUntouched(t *testing.T) {
	cert := certificate(t)
	addr, ports := appleOrigins(t, cert)
	hosts := map[string]string{}
	for _, row := range catalog.Embedded() {
		hosts[row.Host] = addr
	}
	places := applePlaces(t)
	everything := everythingOn()
	everything.hosts = hosts
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, everything)
		st := r.server.pipeline.State()
		if got := r.guess("alice", 429); got == 0 {
			t.Fatal("guesses are not damped")
		}
		if got := r.guess("nobody", 503); got != 1 {
			t.Fatalf("without a directory: the %d. answer is 503", got)
		}
		for _, p := range places {
			target := p.String()
			parsed, err := policy.ParseTarget(target, 0)
			if err != nil {
				t.Fatal(err)
			}
			d := st.Policy.Decide(&policy.Request{Target: parsed, Client: r.listener.Addr().(*net.TCPAddr).AddrPort().Addr(), Connect: true})
			if d.Action != policy.Tunnel || d.Rule != policy.RuleApple {
				t.Errorf("%s: %s by rule %s", target, d.Action, d.Rule)
			}
			if p.port == 80 {
				c := r.dial()
				c.send("GET http://" + p.host + "/ HTTP/1.1\r\nHost: " + p.host + "\r\n" + basic("nobody", "wrong") + "\r\nConnection: close\r\n\r\n")
				if a := c.answer("GET"); ports[80] && (a.StatusCode != 200 || a.body != "apple") || a.StatusCode == 407 {
					t.Errorf("http://%s: %s %q", p.host, a.Status, a.body)
				}
				c.Close()
			}
			c := r.dial()
			c.send(connectTo(target, basic("alice", "wrong")))
			resp, err := http.ReadResponse(c.in, &http.Request{Method: http.MethodConnect})
			if err != nil {
				t.Fatalf("%s: %v", target, err)
			}
			switch {
			case !ports[p.port]: // a UDP row, or a port that could not be taken
				if resp.StatusCode != 502 {
					t.Errorf("%s: %s", target, resp.Status)
				}
			case resp.StatusCode != 200:
				t.Errorf("%s: %s", target, resp.Status)
			case p.port != 80:
				secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: p.host}) // the certificate is compared
				got, err := io.ReadAll(secure)
				if err != nil || string(got) != "apple" {
					t.Errorf("%s: received %q, %v", target, got, err)
				} else if !bytes.Equal(secure.ConnectionState().PeerCertificates[0].Raw, cert.Certificate[0]) {
					t.Errorf("%s: the certificate is not the origin's", target)
				}
			}
			c.Close()
		}
		for _, rec := range r.stop() {
			if rec.Host == guessedAt {
				continue
			}
			i := slices.Index(places, place{rec.Host, rec.Port})
			if i < 0 || rec.Rule != policy.RuleApple || rec.Service == catalog.Other || rec.User != "" {
				t.Errorf("record %+v", rec)
			}
		}
	})
}

// The same holds where a CONNECT leads to Apple, by a name or by an address alone, and TLS has
// the name of any row. A parent proxy takes the place of Apple.
func TestAppleByNameInTLS(t *testing.T) {
	cert := certificate(t)
	parent := newOrigin(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		head, err := readHead(in)
		if err != nil || !strings.HasPrefix(head, "CONNECT 17.") && !strings.HasPrefix(head, "CONNECT www.apple.com:") {
			_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(c, established)
		_, _ = io.WriteString(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}), "apple")
	})
	everything := everythingOn()
	everything.parent = "http://" + parent.String()
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, everything)
		n := 0
		for _, p := range applePlaces(t) {
			if p.port == 80 {
				continue
			}
			for _, connect := range []string{"www.apple.com", "17.57.144.1"} {
				n++
				at := place{connect, p.port}
				c := r.dial()
				c.send(connectTo(at.String(), basic("alice", "wrong")))
				if a := c.head(http.MethodConnect); a.StatusCode != http.StatusOK {
					t.Errorf("CONNECT %s: %s", at, a.Status)
					continue
				}
				secure := c.secure(&tls.Config{InsecureSkipVerify: true, ServerName: p.host}) // the certificate is compared
				got, err := io.ReadAll(secure)
				if err != nil || string(got) != "apple" {
					t.Errorf("%s behind %s: received %q, %v", p.host, at, got, err)
				} else if !bytes.Equal(secure.ConnectionState().PeerCertificates[0].Raw, cert.Certificate[0]) {
					t.Errorf("%s behind %s: the certificate is not the origin's", p.host, at)
				}
				c.Close()
			}
		}
		records := r.stop()
		if len(records) != n {
			t.Errorf("%d records of %d CONNECTs", len(records), n)
		}
		for _, rec := range records {
			if rec.Action != policy.Tunnel || rec.Rule != policy.RuleApple || rec.Service == catalog.Other || rec.User != "" || rec.Error != "" {
				t.Errorf("record %+v", rec)
			}
		}
	})
}
