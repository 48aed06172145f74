package accesslog

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"espalier/policy"
)

// benchmarkRecords is how many the searched store has.
const benchmarkRecords = 1_000_000

// fleet makes the records from n on of a fleet of 5,000 devices over 30 days that
// ended now.
func fleet(now time.Time, from, n int) []Record {
	rnd := uint64(from)*2654435761 + 1
	next := func(n int) int {
		rnd ^= rnd << 13
		rnd ^= rnd >> 7
		rnd ^= rnd << 17
		return int(rnd % uint64(n))
	}
	hosts := []struct{ name, service string }{
		{"gs.apple.com", "software-update"}, {"mesu.apple.com", "software-update"}, {"1-courier.push.apple.com", "push"},
		{"gateway.icloud.com", "icloud"}, {"itunes.apple.com", "app-store"}, {"captive.apple.com", "device-setup"},
		{"www.example.org", "other"}, {"cdn.school.example", "other"}, {"static.games.example", "other"},
	}
	list := make([]Record, n)
	for i := range list {
		h := hosts[next(len(hosts))]
		at := now.Add(-30 * 24 * time.Hour).Add(time.Duration(from+i) * (30 * 24 * time.Hour / benchmarkRecords))
		r := &list[i]
		*r = Record{
			ID: ID(at.UnixNano()), Time: at, Node: "proxy-1", Client: netip.AddrFrom4([4]byte{10, 1, byte(next(20)), byte(next(250))}),
			Method: "CONNECT", Host: h.name, Port: 443, Service: h.service, Action: policy.Tunnel, Rule: "apple", Status: 200,
			Up: int64(next(20000)), Down: int64(next(400000)), Duration: time.Duration(next(40000)) * time.Millisecond,
			Connect: 30 * time.Millisecond, Upstream: netip.MustParseAddrPort("17.57.146.20:443"),
			Agent: "MobileAsset/1.1 CFNetwork/1490.0.4 Darwin/23.2.0",
		}
		if next(5000) == 0 {
			r.Down = int64(next(1e9))
		}
		if h.service != "other" {
			continue
		}
		if next(2) == 0 {
			r.Host = fmt.Sprintf("h%d.%s", next(20000), h.name)
		}
		r.Rule, r.User = "default", fmt.Sprintf("user%d", next(3000))
		switch next(20) {
		case 0:
			r.Action, r.Rule, r.Status, r.Up, r.Down = policy.Deny, "no-games", 403, 0, 0
		case 1:
			r.Action, r.Status, r.Error, r.Up, r.Down = policy.Error, 502, "lookup "+r.Host+": no such host", 0, 0
		case 2:
			r.Action, r.Method, r.Port, r.URL = policy.Forward, "GET", 80, "http://"+r.Host+"/a/page/of/some/length.html"
		}
	}
	return list
}

// fleetStore is a store of a million records, made once in the directory that
// ESPALIER_BENCH_STORE names, or in one of its own.
func fleetStore(b *testing.B) *Store {
	b.Helper()
	dir := os.Getenv("ESPALIER_BENCH_STORE")
	if dir == "" {
		dir = b.TempDir()
	}
	s, err := OpenStore(testStore, dir, nop)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	last, err := s.Last(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	const at = 3000
	now := time.Now()
	for from := 0; from < benchmarkRecords && last.seq == 0; from += at {
		if _, err := s.insert(b.Context(), batch{records: fleet(now, from, min(at, benchmarkRecords-from))}, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.tidy(b.Context()); err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkStoreInsert(b *testing.B) {
	s, err := OpenStore(testStore, b.TempDir(), nop)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const at = 3000
	now := time.Now()
	n := 0
	for b.Loop() {
		if _, err := s.insert(b.Context(), batch{records: fleet(now, n, at)}, nil); err != nil {
			b.Fatal(err)
		}
		n += at
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
}

// Retention, without its pauses.
func BenchmarkStoreRemove(b *testing.B) {
	s, err := OpenStore(testStore, b.TempDir(), nop)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	from := 0
	for b.Loop() {
		b.StopTimer()
		list := fleet(now, from, removeAtOnce+1)
		if _, err := s.insert(b.Context(), batch{records: list}, nil); err != nil {
			b.Fatal(err)
		}
		from += removeAtOnce
		b.StartTimer()
		if _, err := s.removeOldest(b.Context(), 1<<61); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(from)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkStoreSearch(b *testing.B) {
	s := fleetStore(b)
	now := time.Now()
	for _, c := range []struct {
		name string
		f    Filter
	}{
		{"all", Filter{}},
		{"an hour, last week", Filter{From: now.Add(-169 * time.Hour), To: now.Add(-168 * time.Hour)}},
		{"a client", Filter{Client: netip.MustParsePrefix("10.1.7.77/32")}},
		{"a network", Filter{Client: netip.MustParsePrefix("10.1.7.0/24")}},
		{"a wide network, long ago", Filter{Client: netip.MustParsePrefix("10.1.0.0/17"), To: now.Add(-29 * 24 * time.Hour)}},
		{"a user", Filter{User: "user77"}},
		{"a rare host", Filter{Host: "h77.www.example.org"}},
		{"a domain of many", Filter{Host: "apple.com"}},
		{"a host that never was", Filter{Host: "example.net"}},
		{"a service", Filter{Service: "push"}},
		{"denials", Filter{Action: policy.Deny}},
		{"denials of a client", Filter{Action: policy.Deny, Client: netip.MustParsePrefix("10.1.7.77/32")}},
		{"tunnels", Filter{Action: policy.Tunnel}},
		{"a rule", Filter{Rule: "no-games"}},
		{"5xx", Filter{StatusMin: 500, StatusMax: 599}},
		{"5xx of a service that has none", Filter{StatusMin: 500, StatusMax: 599, Service: "push"}},
		{"part of an error", Filter{Error: "no such host"}},
		{"an error that never was", Filter{Error: "certificate"}},
		{"100 MB", Filter{MinBytes: 100e6}},
		{"39 s", Filter{MinDuration: 39 * time.Second}},
		{"a domain, a service and an action", Filter{Host: "example.org", Service: "other", Action: policy.Error}},
	} {
		b.Run(strings.ReplaceAll(c.name, " ", "-"), func(b *testing.B) {
			found := 0
			for b.Loop() {
				page, err := s.Search(context.Background(), c.f, Range{Limit: 100})
				if err != nil {
					b.Fatal(err)
				}
				found = len(page.Records)
			}
			b.ReportMetric(float64(found), "found")
		})
	}
	for _, by := range Dimensions {
		for _, since := range []time.Duration{24 * time.Hour, 30 * 24 * time.Hour} {
			b.Run(fmt.Sprintf("traffic-by-%s-%v", by, since), func(b *testing.B) {
				for b.Loop() {
					if _, err := s.Traffic(context.Background(), TrafficQuery{From: now.Add(-since), By: by, Limit: 20}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkStorePorts(b *testing.B) {
	s := fleetStore(b)
	now := time.Now()
	for b.Loop() {
		if _, err := s.PortsBeyond(b.Context(), now.Add(-30*24*time.Hour), now, policy.DefaultPorts()); err != nil {
			b.Fatal(err)
		}
	}
}
