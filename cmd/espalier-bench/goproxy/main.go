// Command goproxy is elazarl/goproxy as it is shipped, served by net/http: a
// peer for espalier-bench to compare with. Its argument is the listen address;
// with a domain and a file of CAs behind it, it intercepts TLS, and the names below
// the domain are at 127.0.0.1.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/elazarl/goproxy"
)

func main() {
	if len(os.Args) != 2 && len(os.Args) != 4 {
		log.Fatal("usage: goproxy ADDR [DOMAIN CAFILE]")
	}
	p := goproxy.NewProxyHttpServer()
	// The environment of whoever runs the bench must not add another hop.
	p.Tr.Proxy = nil
	p.ConnectDial = nil
	if len(os.Args) == 4 {
		text, err := os.ReadFile(os.Args[3])
		if err != nil {
			log.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(text)
		p.Tr.TLSClientConfig = &tls.Config{RootCAs: roots}
		p.OnRequest().HandleConnect(goproxy.AlwaysMitm)
		p.Tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if host, port, _ := net.SplitHostPort(addr); strings.HasSuffix(host, "."+os.Args[2]) {
				addr = net.JoinHostPort("127.0.0.1", port)
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	}
	log.Fatal(http.ListenAndServe(os.Args[1], p))
}
