package traffic

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"espalier/policy"
	"espalier/policy/catalog"
)

// scrape returns the exposition of c, by series.
func scrape(t *testing.T, c *Counters) map[string]string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).
		ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	series := map[string]string{}
	text, _ := io.ReadAll(w.Body)
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			series[name] = value
		}
	}
	return series
}

func TestExposition(t *testing.T) {
	c := New()
	push := c.Service(catalog.Push)
	push.TunnelOpened()
	push.TunnelOpened()
	push.TunnelClosed()
	push.AddUp(100)
	push.AddDown(1 << 40)
	push.Request(policy.Tunnel)
	push.Request(policy.Tunnel)
	push.Request(policy.Error)
	c.Service("no such service").AddUp(7)
	c.Service(catalog.Other).Request("no such action")
	c.Connected(20 * time.Millisecond)
	c.Connected(time.Minute)

	got := scrape(t, c)
	for name, want := range map[string]string{
		`espalier_bytes_total{direction="up",service="push"}`:              "100",
		`espalier_bytes_total{direction="down",service="push"}`:            "1.099511627776e+12",
		`espalier_bytes_total{direction="up",service="other"}`:             "7",
		`espalier_bytes_total{direction="down",service="software-update"}`: "0",
		`espalier_requests_total{action="tunnel",service="push"}`:          "2",
		`espalier_requests_total{action="error",service="push"}`:           "1",
		`espalier_requests_total{action="challenge",service="other"}`:      "0",
		`espalier_tunnels{service="push"}`:                                 "1",
		`espalier_tunnels{service="siri"}`:                                 "0",
		`espalier_connect_seconds_bucket{le="0.01"}`:                       "0",
		`espalier_connect_seconds_bucket{le="0.025"}`:                      "1",
		`espalier_connect_seconds_bucket{le="+Inf"}`:                       "2",
		`espalier_connect_seconds_count`:                                   "2",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	histogram := 0
	for name := range got {
		if strings.HasPrefix(name, "espalier_connect_seconds") {
			histogram++
		}
	}
	if want := len(catalog.Services) * (2 + len(Actions) + 1); len(got)-histogram != want {
		t.Errorf("%d series, want %d", len(got)-histogram, want)
	}
}

func TestSnapshot(t *testing.T) {
	c := New()
	icloud := c.Service("icloud")
	icloud.AddUp(3)
	icloud.AddDown(4)
	icloud.Request(policy.Deny)
	icloud.Request(policy.Inspect)
	list := c.Snapshot()
	if len(list) != len(catalog.Services) {
		t.Fatalf("%d services", len(list))
	}
	for i, s := range list {
		if s.Service != catalog.Services[i].ID || len(s.Requests) != len(Actions) {
			t.Errorf("%d: %+v", i, s)
		}
		if s.Service == "icloud" {
			if s.Up != 3 || s.Down != 4 || s.Bytes() != 7 || s.Total() != 2 || s.Requests[policy.Deny] != 1 {
				t.Errorf("%+v", s)
			}
		} else if s.Bytes() != 0 || s.Total() != 0 || s.Tunnels != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func TestConcurrentCounting(t *testing.T) {
	c := New()
	var wg sync.WaitGroup
	const workers, each = 4, 2000
	for range workers {
		wg.Go(func() {
			for i := range each {
				s := c.Service(catalog.Services[i%len(catalog.Services)].ID)
				s.TunnelOpened()
				s.AddUp(1)
				s.AddDown(2)
				s.Request(Actions[i%len(Actions)])
				s.TunnelClosed()
				if i%500 == 0 {
					c.Snapshot()
				}
			}
		})
	}
	wg.Wait()
	var up, down, tunnels, requests int64
	for _, s := range c.Snapshot() {
		up, down, tunnels, requests = up+s.Up, down+s.Down, tunnels+s.Tunnels, requests+s.Total()
	}
	if up != workers*each || down != 2*workers*each || tunnels != 0 || requests != workers*each {
		t.Errorf("up %d, down %d, tunnels %d, requests %d", up, down, tunnels, requests)
	}
}

func BenchmarkAdd(b *testing.B) {
	c := New()
	b.RunParallel(func(pb *testing.PB) {
		s := c.Service(catalog.Push)
		for pb.Next() {
			s.AddUp(1)
			s.AddDown(1)
		}
	})
}
