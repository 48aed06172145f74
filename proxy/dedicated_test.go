package proxy

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"espalier/policy"
)

// A destination that signs in connections, as by NTLM, takes nobody for the user
// who has signed in on another, and its three steps come on one connection
// whatever others do meanwhile.
func TestConnectionsThatAreSignedIn(t *testing.T) {
	type account struct{ asked, user string }
	type key struct{}
	handler := func(w http.ResponseWriter, r *http.Request) {
		a := r.Context().Value(key{}).(*account)
		var step, name string
		for _, v := range r.Header["Authorization"] {
			_, _ = fmt.Sscanf(v, "NTLM %s %s", &step, &name)
		}
		switch {
		case step == "hello":
			a.asked = name
			w.Header().Set("WWW-Authenticate", "NTLM challenge")
		case step == "answer" && name == a.asked && name != "":
			a.user = name
		}
		if a.user == "" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		io.WriteString(w, cmp.Or(a.user, "nobody"))
	}
	serve := func(secure bool) (*httptest.Server, uint16) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(handler))
		s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, key{}, &account{})
		}
		if s.EnableHTTP2 = true; secure {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		return s, uint16(s.Listener.Addr().(*net.TCPAddr).Port)
	}
	plain, port := serve(false)
	secure, securePort := serve(true)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	type asking func(authorization string) string
	tests := []struct {
		name string
		open func(*testing.T, *rig) asking
	}{
		{"plain", func(t *testing.T, r *rig) asking {
			c := r.dial()
			return func(authorization string) string {
				return askWith(t, c, c.in, plain.URL+"/", fmt.Sprintf("127.0.0.1:%d", port), authorization)
			}
		}},
		{"intercepted", func(t *testing.T, r *rig) asking {
			at := fmt.Sprintf("example.com:%d", securePort)
			conn := r.connected(at).secure(&tls.Config{ServerName: "example.com", RootCAs: r.trusted()})
			in := bufio.NewReader(conn)
			return func(authorization string) string { return askWith(t, conn, in, "/", at, authorization) }
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
				r := start(t, setup{inspect: policy.InspectAll, roots: roots, hosts: map[string]string{"example.com": "127.0.0.1"}})
				alice, bob, carol, other := tt.open(t, r), tt.open(t, r), tt.open(t, r), tt.open(t, r)
				for i, step := range []struct {
					who                 asking
					authorization, want string
				}{
					{alice, "", "401 nobody"},
					{other, "", "401 nobody"},
					{alice, "NTLM hello alice", "401 nobody"},
					{other, "", "401 nobody"},
					{bob, "NTLM hello bob", "401 nobody"},
					{alice, "NTLM answer alice", "200 alice"},
					{other, "", "401 nobody"},
					{bob, "NTLM answer bob", "200 bob"},
					{alice, "", "200 alice"},
					{other, "", "401 nobody"},
					{bob, "", "200 bob"},
					{other, "Basic eDp5", "401 nobody"},
					{carol, "Basic eDp5\r\nAuthorization: NTLM hello carol", "401 nobody"},
					{carol, "Basic eDp5\r\nAuthorization: NTLM answer carol", "200 carol"},
					{other, "", "401 nobody"},
				} {
					if got := step.who(step.authorization); got != step.want {
						t.Errorf("step %d, %q: %s, want %s", i, step.authorization, got, step.want)
					}
				}
			})
		})
	}
}

// askWith asks on a connection that is kept, and returns status and body.
func askWith(t *testing.T, c net.Conn, in *bufio.Reader, url, host, authorization string) string {
	t.Helper()
	line := ""
	if authorization != "" {
		line = "Authorization: " + authorization + "\r\n"
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", url, host, line)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Close {
		t.Fatalf("%q, %v, and the end: %v", body, err, resp.Close)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, body)
}
