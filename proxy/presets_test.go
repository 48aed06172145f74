package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"espalier/policy"
)

// Headers of a rule take the place of what the client sent, on plain requests
// only, and never on Apple's.
func TestHeaders(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		o := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r := start(t, setup{
			hosts: map[string]string{"captive.apple.com": "127.0.0.1", "marked.example": "127.0.0.1"},
			extra: []string{fmt.Sprintf("captive.apple.com:%d", o.Port())},
			rules: []policy.Rule{{Name: "mark", Then: "allow", Headers: map[string]string{"X-Mark": "ours", "Cookie": ""}}},
		})
		for host, want := range map[string][]string{
			"marked.example":    {"GET / HTTP/1.1", "Cookie: ", fmt.Sprintf("Host: marked.example:%d", o.Port()), "X-Mark: ours"},
			"captive.apple.com": {"GET / HTTP/1.1", "Cookie: a=b", fmt.Sprintf("Host: captive.apple.com:%d", o.Port())},
		} {
			c := r.dial()
			at := fmt.Sprintf("%s:%d", host, o.Port())
			mark := ""
			if host == "marked.example" { // nor can it be removed as a connection's
				mark = "X-Mark: evil\r\nx-mark: evil\r\nConnection: X-Mark\r\n"
			}
			c.send("GET http://" + at + "/ HTTP/1.1\r\nHost: " + at + "\r\nCookie: a=b\r\n" + mark + "\r\n")
			if a := c.answer("GET"); a.StatusCode != 200 {
				t.Fatalf("%s: %d", host, a.StatusCode)
			}
			heads, _ := o.seen()
			compareLines(t, "origin", heads[len(heads)-1], want...)
		}
		c := r.dial()
		at := fmt.Sprintf("marked.example:%d", o.Port())
		c.send("CONNECT " + at + " HTTP/1.1\r\nHost: " + at + "\r\n\r\n")
		c.expect(established)
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		c.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		heads, _ := o.seen()
		compareLines(t, "origin in the tunnel", heads[len(heads)-1], "GET / HTTP/1.1", "Host: x")
	})
}

// twoOrigins answer at the same port of two addresses with what they are.
func twoOrigins(t *testing.T) (plain, safe netip.AddrPort) {
	t.Helper()
	handle := func(name string) func(net.Conn) {
		return func(c net.Conn) {
			in := bufio.NewReader(c)
			for {
				head, err := readHead(in)
				if err != nil {
					return
				}
				_, host, _ := strings.Cut(head, "Host: ")
				host, _, _ = strings.Cut(host, "\r\n")
				body := name + " for " + host
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			}
		}
	}
	plain = newOrigin(t, handle("plain"))
	return plain, newOriginAt(t, fmt.Sprintf("127.0.0.2:%d", plain.Port()), handle("safe"))
}

// Safe search connects elsewhere, and nothing else is other than before. A
// connection that was kept for the one host is not taken for the other.
func TestSafeSearch(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		plain, safe := twoOrigins(t)
		r := start(t, setup{
			hosts: map[string]string{
				"www.google.com": "127.0.0.1", "news.google.com": "127.0.0.1", "www.google.se": "127.0.0.1",
				"forcesafesearch.google.com": "127.0.0.2", "safe.duckduckgo.com": "10.1.2.3",
			},
			presets: policy.Presets{SafeSearch: []string{"google", "duckduckgo"}},
		})
		for _, tt := range []struct{ host, want string }{
			{"forcesafesearch.google.com", "safe"}, {"www.google.com", "safe"}, {"news.google.com", "plain"},
			{"www.google.se", "safe"}, {"forcesafesearch.google.com", "safe"}, {"www.google.com", "safe"},
		} {
			at := fmt.Sprintf("%s:%d", tt.host, plain.Port())
			want := tt.want + " for " + at
			c := r.dial()
			c.send("GET http://" + at + "/ HTTP/1.1\r\nHost: " + at + "\r\n\r\n")
			if a := c.answer("GET"); a.StatusCode != 200 || a.body != want {
				t.Errorf("plain: %d %q, want %q", a.StatusCode, a.body, want)
			}
			c = r.dial()
			c.send("CONNECT " + at + " HTTP/1.1\r\nHost: " + at + "\r\n\r\n")
			c.expect(established)
			c.send("GET / HTTP/1.1\r\nHost: " + at + "\r\n\r\n")
			c.expect(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(want), want))
			c.finish()
		}
		// The guard looks at the address that is dialed.
		c := r.dial()
		c.send("CONNECT duckduckgo.com:443 HTTP/1.1\r\nHost: duckduckgo.com:443\r\n\r\n")
		if a := c.answer("CONNECT"); a.StatusCode != 403 || !strings.Contains(a.Header.Get("Proxy-Status"), "destination_ip_prohibited") {
			t.Errorf("guard: %d %v", a.StatusCode, a.Header)
		}
		for _, rec := range r.stop() {
			if want := map[string]netip.AddrPort{"www.google.com": safe, "news.google.com": plain, "duckduckgo.com": {}}; rec.Host != "www.google.se" &&
				rec.Host != "forcesafesearch.google.com" && rec.Upstream != want[rec.Host] {
				t.Errorf("the record of %s names %s", rec.Host, rec.Upstream)
			}
		}
	})
}

// A parent is asked for the safe host, since it is the parent that looks it up;
// also for plain requests, whose URL must name the other.
func TestSafeSearchThroughParent(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		asked := make(chan string, 8)
		parent := newOrigin(t, func(c net.Conn) {
			in := bufio.NewReader(c)
			for {
				head, err := readHead(in)
				if err != nil {
					return
				}
				line, _, _ := strings.Cut(head, "\r\n")
				asked <- line
				if strings.HasPrefix(line, "CONNECT ") {
					_, _ = io.WriteString(c, established)
				} else {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}
		})
		r := start(t, setup{parent: "http://" + parent.String(), presets: policy.Presets{YouTube: policy.YouTubeStrict}})
		expect := func(lines ...string) {
			t.Helper()
			for _, want := range lines {
				select {
				case got := <-asked:
					if got != want {
						t.Errorf("the parent was asked %q, want %q", got, want)
					}
				case <-time.After(limit):
					t.Fatalf("the parent was not asked %q", want)
				}
			}
		}
		get := func(host string) {
			t.Helper()
			c := r.dial()
			c.send("GET http://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			if a := c.answer("GET"); a.StatusCode != 200 {
				t.Errorf("%s: %d", host, a.StatusCode)
			}
		}
		get("restrict.youtube.com") // leaves a connection that must not be taken
		expect("GET http://restrict.youtube.com/ HTTP/1.1")
		get("www.youtube.com")
		expect("CONNECT restrict.youtube.com:80 HTTP/1.1", "GET / HTTP/1.1")
		c := r.dial()
		c.send("CONNECT www.youtube.com:443 HTTP/1.1\r\nHost: www.youtube.com:443\r\n\r\n")
		c.expect(established)
		expect("CONNECT restrict.youtube.com:443 HTTP/1.1")
	})
}
