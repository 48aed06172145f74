package proxy

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/websocket"

	"espalier/policy"
	"espalier/policy/auth"
)

// lessons is a rule that denies hosts for an hour, and a time within that hour. Now is not.
func lessons(hosts ...string) (policy.Rule, time.Time) {
	from := time.Now().UTC().Add(2 * time.Hour)
	hours := from.Format("15:04-") + from.Add(time.Hour).Format("15:04") + " UTC"
	return policy.Rule{
		Name: "lessons", Then: "deny", EndOpen: true, When: policy.When{Hosts: hosts, Hours: []string{hours}},
	}, from.Add(time.Minute)
}

const (
	upgrade  = " HTTP/1.1\r\nHost: game.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)

// echoSocket is echo behind a WebSocket's handshake.
func echoSocket(c net.Conn) {
	in := bufio.NewReader(c)
	if _, err := readHead(in); err == nil {
		_, _ = io.WriteString(c, switched)
		_, _ = io.Copy(c, in)
	}
}

// tlsHello is a ClientHello for host.
func tlsHello(host string) string {
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: host}).Handshake()
		theirs.Close()
	}()
	defer ours.Close()
	b := make([]byte, 16<<10)
	n, _ := ours.Read(b)
	return string(b[:n])
}

// When a rule's hours begin, end_open ends the open tunnels that the policy then denies, and
// only these. Their records name the rule.
func TestEndOpen(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		for _, x := range []struct {
			name, host, user string
			says             string // first
			socket           bool   // in place of a CONNECT
			ends             bool
		}{
			{name: "denied host", host: "game.example", says: "x", ends: true},
			{name: "silent client", host: "game.example", ends: true},
			{name: "incomplete hello", host: "game.example", says: "\x16\x03\x01", ends: true},
			{name: "other host", host: "free.example", says: "x"},
			{name: "address", host: "127.0.0.1", says: "x"},
			{name: "denied user", host: "game.example", user: "bob", says: "x", ends: true},
			{name: "allowed group", host: "game.example", user: "ann", says: "x"},
			{name: "allowed group, silent", host: "game.example", user: "ann"},
			{name: "denied name in TLS", host: "free.example", says: tlsHello("game.example"), ends: true},
			{name: "denied name in TLS of a user", host: "free.example", user: "bob", says: tlsHello("game.example"), ends: true},
			{name: "allowed name in TLS of a group", host: "free.example", user: "ann", says: tlsHello("game.example")},
			{name: "other name in TLS", host: "free.example", says: tlsHello("other.example")},
			{name: "Apple", host: "www.apple.com", says: "x"},
			{name: "Apple's name in TLS", host: "www.apple.com", says: tlsHello("gs.apple.com")},
			{name: "foreign name in TLS to Apple", host: "www.apple.com", says: tlsHello("game.example"), ends: true},
			{name: "WebSocket", host: "game.example", says: "x", socket: true, ends: true},
			{name: "WebSocket elsewhere", host: "free.example", says: "x", socket: true},
		} {
			t.Run(x.name, func(t *testing.T) {
				rule, later := lessons("game.example", "www.apple.com")
				c := setup{rules: []policy.Rule{rule}, hosts: map[string]string{"*.example": "127.0.0.1", "*.apple.com": "127.0.0.1"}}
				if x.user != "" {
					c.users = map[string]string{"ann": "pw", "bob": "pw"}
					c.auth = auth.Config{Groups: filepath.Join(t.TempDir(), "groups")}
					if err := os.WriteFile(c.auth.Groups, []byte("teachers: ann\n"), 0o600); err != nil {
						t.Fatal(err)
					}
					teachers := policy.Rule{Name: "teachers", Then: "allow", When: policy.When{Groups: []string{"teachers"}}}
					c.rules = slices.Insert(c.rules, 0, teachers)
				}
				handle := echo
				if x.socket {
					handle = echoSocket
				}
				at := newOrigin(t, handle)
				target := x.host + at.String()[strings.LastIndexByte(at.String(), ':'):]
				r := start(t, c)
				client := r.dial()
				if x.socket {
					client.send("GET http://" + target + "/" + upgrade)
					if a := client.head("GET"); a.StatusCode != http.StatusSwitchingProtocols {
						t.Fatal(a.Status)
					}
				} else {
					client.send(connectTo(target, basic(cmp.Or(x.user, "-"), "pw")))
					client.expect(established)
				}
				client.send(x.says)
				if x.says != "\x16\x03\x01" {
					client.expect(x.says)
				}
				r.server.endTunnels(time.Now())
				if len(x.says) == 1 {
					client.send("y")
					client.expect("y")
				}
				r.server.endTunnels(later)
				want := ""
				if x.ends {
					want = "ended by rule lessons"
					_, _ = io.Copy(io.Discard, client.in) // an end or a reset
				} else {
					client.send("z")
					client.expect("z")
					client.end()
				}
				rec := r.record()
				action := policy.Tunnel
				if x.socket {
					action = policy.Forward
				}
				if rec.Error != want || rec.Action != action || rec.Rule == rule.Name || rec.Host != x.host || rec.Up != rec.Down && len(x.says) != 3 {
					t.Errorf("%+v, want the error %q", rec, want)
				}
			})
		}
	})
}

// A tunnel in a stream of HTTP/2 ends alone.
func TestEndOpenInStream(t *testing.T) {
	at := newOrigin(t, echo)
	port := at.String()[strings.LastIndexByte(at.String(), ':'):]
	rule, later := lessons("game.example")
	r, trust := secured(t, setup{rules: []policy.Rule{rule}, hosts: map[string]string{"*.example": "127.0.0.1"}})
	m := r.multiplexer(trust)
	game, free := m.open("game.example"+port, nil), m.open("free.example"+port, nil)
	for _, v := range []*virtual{game, free} {
		v.send("x")
		v.expect("x")
	}
	r.server.endTunnels(later)
	if n, err := io.Copy(io.Discard, game.Body); n > 0 || err == nil {
		t.Errorf("%d bytes, %v, want a reset", n, err)
	}
	free.send("y")
	free.expect("y")
	free.up.Close()
	if n, err := io.Copy(io.Discard, free.Body); n > 0 || err != nil {
		t.Errorf("%d bytes, %v, want the end", n, err)
	}
	m.conn.Close()
	for _, rec := range r.stop() {
		if ended := rec.Error == "ended by rule lessons"; ended != (rec.Host == "game.example") {
			t.Errorf("%+v", rec)
		}
	}
}

// An intercepted connection that is kept open ends. That is no refusal of the certificate.
func TestEndOpenKeptAlive(t *testing.T) {
	for _, h2 := range []bool{true, false} {
		for _, x := range []struct {
			name, host string
			silent     bool // no request is made
			ends       bool
		}{
			{"denied", "example.com", false, true},
			{"denied, silent", "example.com", true, true},
			{"other host", "other.example", false, false},
		} {
			t.Run(fmt.Sprintf("%s, h2=%v", x.name, h2), func(t *testing.T) {
				everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
					site := newSite(t, func(http.ResponseWriter, *http.Request) {})
					rule, later := lessons("example.com")
					set := site.everything()
					set.rules = []policy.Rule{rule}
					r := start(t, set)
					cfg := &tls.Config{RootCAs: r.trusted(), ServerName: x.host, NextProtos: []string{"http/1.1"}}
					if h2 {
						cfg.NextProtos = []string{"h2"}
					}
					conn := r.connected(site.at(x.host)).secure(cfg)
					if err := conn.Handshake(); err != nil {
						t.Fatal(err)
					}
					if !x.silent {
						transport := &http.Transport{
							DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
							ForceAttemptHTTP2: h2,
						}
						defer transport.CloseIdleConnections()
						fetch(t, &http.Client{Transport: transport, Timeout: limit}, "https://"+site.at(x.host)+"/")
					}
					r.server.endTunnels(time.Now())
					want := ""
					if x.ends {
						want = "ended by rule lessons"
					}
					for { // a session that is silent may still be opening
						r.server.endTunnels(later)
						if !x.ends || r.server.clients.Len() == 0 {
							break
						}
						time.Sleep(time.Millisecond)
					}
					connects, _ := byMethod(r.stop())
					if len(connects) != 1 || connects[0].Error != want || connects[0].Action != policy.Inspect {
						t.Errorf("%+v, want the error %q", connects, want)
					}
				})
			})
		}
	}
}

// A WebSocket in an intercepted connection ends, and a reload is enough to have it end.
func TestEndOpenInIntercepted(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		site := newSite(t, websocket.Handler(func(c *websocket.Conn) { _, _ = io.Copy(c, c) }).ServeHTTP)
		r := start(t, site.everything())
		cfg, err := websocket.NewConfig("wss://"+site.at("example.com")+"/", "https://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		conn := r.connected(site.at("example.com")).secure(&tls.Config{RootCAs: r.trusted(), ServerName: "example.com", NextProtos: []string{"http/1.1"}})
		c, err := websocket.NewClient(cfg, conn)
		if err != nil {
			t.Fatal(err)
		}
		if err := websocket.Message.Send(c, "x"); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := websocket.Message.Receive(c, &got); err != nil || got != "x" {
			t.Fatal(got, err)
		}
		rule, later := lessons("example.com")
		changed := site.everything()
		changed.rules = []policy.Rule{rule}
		r.server.endTunnels(later)
		r.server.Apply(r.state(changed))
		r.server.endTunnels(later)
		if err := websocket.Message.Receive(c, &got); err == nil {
			t.Errorf("received %q", got)
		}
		ended := 0
		for _, rec := range r.stop() {
			if rec.Error == "ended by rule lessons" && rec.Status == http.StatusSwitchingProtocols && rec.Action == policy.Inspect {
				ended++
			}
		}
		if ended != 1 {
			t.Errorf("%d records of ended WebSockets: %+v", ended, r.records)
		}
	})
}

// The rules are asked when a minute begins, whenever the proxy was started.
func TestEachMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(17*time.Second + 300*time.Millisecond)
		stop, at := make(chan struct{}), []string{}
		go eachMinute(stop, func(now time.Time) { at = append(at, now.UTC().Format("15:04:05.000")) })
		time.Sleep(2 * time.Minute)
		close(stop)
		synctest.Wait()
		if want := []string{"00:01:00.000", "00:02:00.000"}; !slices.Equal(at, want) {
			t.Errorf("asked at %v, want %v", at, want)
		}
	})
}
