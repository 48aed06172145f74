package limits

import (
	"net/netip"
	"testing"

	"go.uber.org/zap"
)

func BenchmarkEnter(b *testing.B) {
	m := New(Config{Ops: zap.NewNop()})
	client := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Enter(Tunnel, client, true); err != nil {
			b.Fatal(err)
		}
		m.Leave(Tunnel, client)
	}
}

// One client leaves room for others, whatever it opens, and a network of 64 bits has more
// than one of its addresses.
func TestBoundsOfAClient(t *testing.T) {
	for _, tt := range []struct {
		name    string
		kinds   []Kind
		clients []string
		tunnels int // proxy.max_tunnels_per_client
	}{
		{name: "tunnels of an IPv4 address", kinds: []Kind{Tunnel}, clients: []string{"192.0.2.1"}, tunnels: 3},
		{name: "the same address, mapped", kinds: []Kind{Tunnel}, clients: []string{"192.0.2.1", "::ffff:192.0.2.1"}, tunnels: 3},
		{name: "tunnels of an IPv6 address", kinds: []Kind{Tunnel}, clients: []string{"2001:db8::1"}, tunnels: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := New(Config{MaxTunnelsPerClient: tt.tunnels, Ops: zap.NewNop()})
			n := 0
			for {
				if err := m.Enter(tt.kinds[n%len(tt.kinds)], netip.MustParseAddr(tt.clients[n%len(tt.clients)]), true); err != nil {
					if err.Reason != Client {
						t.Errorf("refused for %v", err)
					}
					break
				}
				n++
			}
			if n != tt.tunnels {
				t.Errorf("%d were open, want %d", n, tt.tunnels)
			}
			if err := m.Enter(Tunnel, netip.MustParseAddr("192.0.2.99"), true); err != nil {
				t.Errorf("another client: %v", err)
			}
		})
	}
}

func TestBoundsOfANetwork(t *testing.T) {
	m := New(Config{MaxTunnelsPerClient: 2, Ops: zap.NewNop()})
	first, n := netip.MustParseAddr("2001:db8:1:2::1"), 0
	for a := first; ; a = a.Next() {
		if m.Enter(Tunnel, a, true) != nil {
			break
		}
		if n++; m.Enter(Tunnel, a, true) == nil {
			n++
		}
		if m.Enter(Tunnel, a, true) == nil {
			t.Fatalf("%s has 3 tunnels", a)
		}
	}
	if n != 2*networkFactor {
		t.Errorf("the network has %d, want %d", n, 2*networkFactor)
	}
	if err := m.Enter(Tunnel, netip.MustParseAddr("2001:db8:1:3::1"), true); err != nil {
		t.Errorf("another network: %v", err)
	}
	for a, left := first, n; left > 0; a = a.Next() {
		m.Leave(Tunnel, a)
		m.Leave(Tunnel, a)
		left -= 2
	}
	m.Leave(Tunnel, netip.MustParseAddr("2001:db8:1:3::1"))
	if tunnels, requests, clients := m.Open(); tunnels+requests+int64(clients) != 0 {
		t.Errorf("%d, %d and %d stay counted", tunnels, requests, clients)
	}
}

// Requests and tunnels of one client together leave the proxy below overload.
func TestOneClientDoesNotOverload(t *testing.T) {
	m := New(Config{Ops: zap.NewNop()})
	hog := netip.MustParseAddr("192.0.2.1")
	for _, kind := range []Kind{Request, Tunnel} {
		for m.Enter(kind, hog, false) == nil {
		}
	}
	m.Look()
	if why := m.Overloaded(); why != "" {
		t.Errorf("overloaded: %s", why)
	}
	for _, kind := range []Kind{Request, Tunnel} {
		if err := m.Enter(kind, netip.MustParseAddr("192.0.2.2"), false); err != nil {
			t.Errorf("another client: %v", err)
		}
	}
}

// Requests have a limit of their own, so that slow ones do not take the place of
// tunnels.
func TestRequestsLeaveRoomForTunnels(t *testing.T) {
	m := New(Config{Ops: zap.NewNop()})
	a, n := netip.MustParseAddr("198.51.100.1"), 0
	for {
		err := m.Enter(Request, a, true)
		if err != nil {
			if err.Reason == Client { // the next one
				a = a.Next()
				continue
			}
			if err.Reason != Requests {
				t.Errorf("refused for %v", err)
			}
			break
		}
		n++
	}
	if int64(n) != m.kinds[Request].limit {
		t.Errorf("%d were in progress, want %d", n, m.kinds[Request].limit)
	}
	if err := m.Enter(Tunnel, a, true); err != nil {
		t.Errorf("a tunnel: %v", err)
	}
}
