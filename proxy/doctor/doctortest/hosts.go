package doctortest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"
)

func (s *Stage) makeCAs() {
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		s.t.Fatal(err)
	}
	ca := func(name string, organisations ...string) *tls.Certificate {
		made, err := s.sign(nil, &x509.Certificate{
			Subject: pkix.Name{CommonName: name, Organization: organisations}, NotBefore: time.Now().AddDate(-3, 0, 0),
			NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		})
		if err != nil {
			s.t.Fatal(err)
		}
		return made
	}
	s.root = ca("Stage Root")
	s.inspector = ca("Example Inspection CA", "Example Security")
	s.apple = ca("Apple Server Authentication CA", "Apple Inc.")
}

// sign makes a certificate by a CA, or by itself if that is nil.
func (s *Stage) sign(by *tls.Certificate, template *x509.Certificate) (*tls.Certificate, error) {
	parent := template
	if by != nil {
		parent = by.Leaf
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	der, err := x509.CreateCertificate(rand.Reader, template, parent, s.key.Public(), s.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s.key, Leaf: leaf}, err
}

// certificate is what a host shows.
func (s *Stage) certificate(host string) (*tls.Certificate, error) {
	by, name, from, to := s.root, host, time.Now().Add(-time.Hour), time.Now().AddDate(0, 3, 0)
	switch s.faults[host] {
	case Intercepted:
		by = s.inspector
	case ApplesCA, WantsDevice:
		by = s.apple
	case Misnamed:
		name = "portal.example"
	case Expired:
		from, to = time.Now().AddDate(-2, 0, 0), time.Now().AddDate(-1, 0, 0)
	}
	return s.sign(by, &x509.Certificate{
		Subject: pkix.Name{CommonName: strings.ToLower(name)}, DNSNames: []string{name}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

func (s *Stage) ssh(c net.Conn) { fmt.Fprint(c, "SSH-2.0-stage\r\n") }

// http answers a request as Apple's hosts do.
func (s *Stage) http(c net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	status, body := "404 Not Found", "nothing here\n"
	switch {
	case s.faults[r.Host] == Silent:
		_, _ = io.Copy(io.Discard, c)
		return
	case s.faults[r.Host] == Portal:
		status, body = "302 Found\r\nLocation: http://login.portal.example/?to="+r.Host, ""
	case r.Host == "captive.apple.com" && r.URL.Path == "/hotspot-detect.html":
		status, body = "200 OK", "<HTML><HEAD><TITLE>Success</TITLE></HEAD><BODY>Success</BODY></HTML>"
	}
	fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(body), body)
}

// tls is every host at once, and as broken as the hello's name is.
func (s *Stage) tls(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		own := &tls.Config{MaxVersion: tls.VersionTLS12}
		if len(hello.SupportedProtos) > 0 {
			own.NextProtos = []string{"h2", "http/1.1"}
		}
		switch s.faults[hello.ServerName] {
		case Silent:
			_, _ = io.Copy(io.Discard, c)
		case Alerts:
			return nil, fmt.Errorf("no certificate for %s", hello.ServerName)
		case Resets:
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		case SpeaksHTTP:
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
			c.Close()
		case WantsDevice:
			own.ClientAuth = tls.RequireAnyClientCert
		}
		cert, err := s.certificate(hello.ServerName)
		if err != nil {
			return nil, err
		}
		own.Certificates = []tls.Certificate{*cert}
		return own, nil
	}}
	conn := tls.Server(c, config)
	if conn.Handshake() == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

// TellTime answers questions of NTP until conn is closed. change, if it is not nil, may
// spoil each answer; what it returns is sent.
func TellTime(conn net.PacketConn, change func([]byte) []byte) {
	epoch := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)
	buf := make([]byte, 64)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if n < 48 || buf[0]&7 != 3 {
			continue
		}
		answer := make([]byte, 48)
		answer[0], answer[1] = 4<<3|4, 2
		copy(answer[24:32], buf[40:48])
		binary.BigEndian.PutUint32(answer[40:], uint32(time.Since(epoch)/time.Second))
		if change != nil {
			answer = change(answer)
		}
		_, _ = conn.WriteTo(answer, from)
	}
}
