package accesslog

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"espalier/policy"
)

// patience bounds every wait in these tests; none of them takes that long unless
// something hangs.
const patience = 20 * time.Second

// await waits until ready says so.
func await(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// logAndStore is a log that a store follows, in a directory.
type logAndStore struct {
	t     *testing.T
	dir   string
	cfg   Config
	log   *Log
	store *Store
}

func openBoth(t *testing.T, cfg Config) *logAndStore {
	t.Helper()
	b := &logAndStore{t: t, dir: t.TempDir(), cfg: cfg}
	b.open()
	t.Cleanup(b.close)
	return b
}

var testStore = StoreConfig{Path: "s.db"}

func (b *logAndStore) open() {
	b.t.Helper()
	var err error
	if b.log, err = Open(b.cfg, b.dir, "n", nop); err != nil {
		b.t.Fatal(err)
	}
	if b.store, err = OpenStore(testStore, b.dir, nop); err != nil {
		b.t.Fatal(err)
	}
	if err := b.log.Feed(b.store); err != nil {
		b.t.Fatal(err)
	}
}

func (b *logAndStore) close() {
	if b.log == nil {
		return
	}
	if err := b.log.Close(); err != nil {
		b.t.Error(err)
	}
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
	b.log = nil
}

func (b *logAndStore) restart() {
	b.t.Helper()
	b.close()
	b.open()
}

// settle waits until so many records are stored.
func (b *logAndStore) settle(n int) {
	b.t.Helper()
	if err := b.log.Flush(); err != nil {
		b.t.Fatal(err)
	}
	await(b.t, "the records", func() bool {
		var stored int
		if err := b.store.read.QueryRow("SELECT count(*) FROM records").Scan(&stored); err != nil {
			b.t.Fatal(err)
		}
		return stored == n
	})
}

// ids returns those of all stored records, the oldest first.
func (b *logAndStore) ids() []ID {
	b.t.Helper()
	return idsOf(b.t, b.store, Filter{})
}

func idsOf(t *testing.T, s *Store, f Filter) []ID {
	t.Helper()
	ids := []ID{}
	for r, err := range s.All(t.Context(), f, true) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	return ids
}

// eachSecond is the records 1 to n, a second apart, of yesterday.
func eachSecond(n int) []Record {
	list := make([]Record, n)
	start := time.Now().Add(-24 * time.Hour).Truncate(time.Hour)
	for i := range list {
		list[i] = Record{ID: ID(i + 1), Time: start.Add(time.Duration(i) * time.Second), Service: "push", Action: policy.Tunnel, Up: 1, Down: int64(i)}
	}
	return list
}

func TestStoreFollowsTheLog(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"a JSON file", Config{File: "access.log", Format: "json"}},
		{"a Squid file", Config{File: "access.log", Format: "squid"}},
		{"no file", Config{Format: "json"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := openBoth(t, c.cfg)
			var want []ID
			for round := range 3 {
				for _, r := range eachSecond(20) {
					r.ID += ID(round * 20)
					r.Time = r.Time.Add(time.Duration(round) * time.Hour)
					b.log.Write(&r)
					want = append(want, r.ID)
				}
				b.settle(len(want))
				b.restart()
			}
			if got := b.ids(); !reflect.DeepEqual(got, want) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestStoreKeepsRecordsAsTheLogHasThem(t *testing.T) {
	b := openBoth(t, Config{File: "access.log", Format: "json"})
	for _, s := range samples {
		b.log.Write(&s.rec)
	}
	b.settle(len(samples))
	f, err := os.Open(filepath.Join(b.dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	if _, err := Read(f, func(want *Record) error {
		n++
		want.Time = want.Time.UTC()
		got, err := b.store.Get(t.Context(), want.ID)
		if err != nil || got != *want {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, *want)
		}
		return nil
	}); err != nil || n != len(samples) {
		t.Fatal(n, err)
	}
	if _, err := b.store.Get(t.Context(), 999); err != ErrNoRecord {
		t.Errorf("no record: %v", err)
	}
}

func TestStoredHostsComeBack(t *testing.T) {
	for _, host := range []string{"", "apple.com", "gs.apple.com", "localhost", "192.0.2.1", "2001:db8::1", "a..b", ".a", "a.", "!", "!a.b", "a.!b", "ÿ.example", "a b"} {
		if got := hostOf(storedHost(host)); got != host {
			t.Errorf("%q comes back as %q", host, got)
		}
	}
}

func TestSearch(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	list := []Record{
		{Client: netip.MustParseAddr("10.1.2.3"), Host: "apple.com", Service: "apple-other", Action: policy.Tunnel, Rule: "apple", Status: 200, Up: 10},
		{Client: netip.MustParseAddr("10.1.2.4"), Host: "gs.apple.com", Service: "software-update", Action: policy.Tunnel, Rule: "apple", Status: 200, Up: 5e6, Down: 5e6},
		{Client: netip.MustParseAddr("10.2.0.1"), Host: "notapple.com", Service: "other", Action: policy.Deny, Rule: "games", Status: 403},
		{Client: netip.MustParseAddr("2001:db8::1"), Host: "apple-x.com", Service: "other", Action: policy.Forward, Rule: "default", Status: 304, User: "anna"},
		{Client: netip.MustParseAddr("10.1.2.3"), Host: "192.0.2.9", Service: "other", Action: policy.Error, Rule: "default", Status: 502, Error: "dial: Connection refused"},
		{Client: netip.MustParseAddr("10.1.2.3"), Host: "x.gs.apple.com", Service: "push", Action: policy.Tunnel, Rule: "apple", Status: 200, Duration: time.Hour, User: "bo", Error: "idle"},
	}
	b := openBoth(t, Config{File: "access.log", Format: "json"})
	for i := range list {
		list[i].ID, list[i].Time = ID(i+1), at.Add(time.Duration(i)*time.Minute)
		b.log.Write(&list[i])
	}
	b.settle(len(list))
	for _, c := range []struct {
		name string
		f    Filter
		want []ID
	}{
		{"all", Filter{}, []ID{1, 2, 3, 4, 5, 6}},
		{"from, inclusive", Filter{From: at.Add(3 * time.Minute)}, []ID{4, 5, 6}},
		{"to, exclusive", Filter{To: at.Add(3 * time.Minute)}, []ID{1, 2, 3}},
		{"a window", Filter{From: at.Add(time.Minute), To: at.Add(2 * time.Minute)}, []ID{2}},
		{"a client", Filter{Client: netip.MustParsePrefix("10.1.2.3/32")}, []ID{1, 5, 6}},
		{"a network", Filter{Client: netip.MustParsePrefix("10.1.0.0/16")}, []ID{1, 2, 5, 6}},
		{"an IPv6 network", Filter{Client: netip.MustParsePrefix("2001:db8::/32")}, []ID{4}},
		{"all IPv4", Filter{Client: netip.MustParsePrefix("0.0.0.0/0")}, []ID{1, 2, 3, 5, 6}},
		{"a user", Filter{User: "anna"}, []ID{4}},
		{"a domain and what is below", Filter{Host: "apple.com"}, []ID{1, 2, 6}},
		{"only what is below", Filter{Host: "*.apple.com"}, []ID{2, 6}},
		{"another case, and a dot", Filter{Host: "GS.Apple.com."}, []ID{2, 6}},
		{"an address", Filter{Host: "192.0.2.9"}, []ID{5}},
		{"a top level", Filter{Host: "com"}, []ID{1, 2, 3, 4, 6}},
		{"a service", Filter{Service: "other"}, []ID{3, 4, 5}},
		{"tunnels", Filter{Action: policy.Tunnel}, []ID{1, 2, 6}},
		{"denials", Filter{Action: policy.Deny}, []ID{3}},
		{"a rule", Filter{Rule: "games"}, []ID{3}},
		{"a rule of most", Filter{Rule: "apple"}, []ID{1, 2, 6}},
		{"a status", Filter{StatusMin: 304, StatusMax: 304}, []ID{4}},
		{"a class", Filter{StatusMin: 400, StatusMax: 599}, []ID{3, 5}},
		{"a class of most", Filter{StatusMin: 200, StatusMax: 299}, []ID{1, 2, 6}},
		{"at least a status", Filter{StatusMin: 403}, []ID{3, 5}},
		{"any error", Filter{Error: "*"}, []ID{5, 6}},
		{"part of an error", Filter{Error: "connection REFUSED"}, []ID{5}},
		{"much traffic", Filter{MinBytes: 10e6}, []ID{2}},
		{"some traffic", Filter{MinBytes: 10}, []ID{1, 2}},
		{"long", Filter{MinDuration: time.Hour}, []ID{6}},
		{"not so short", Filter{MinDuration: time.Second}, []ID{6}},
		{"several", Filter{Client: netip.MustParsePrefix("10.1.0.0/16"), Host: "apple.com", User: "bo", MinDuration: time.Minute, Error: "*"}, []ID{6}},
		{"none", Filter{Service: "siri"}, []ID{}},
		{"no injection", Filter{User: "' OR ''='"}, []ID{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := idsOf(t, b.store, c.f); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			for i := range list {
				if got := c.f.Match(&list[i]); got != slices.Contains(c.want, list[i].ID) {
					t.Errorf("match of %v: %v", list[i].ID, got)
				}
			}
			page, err := b.store.Search(t.Context(), c.f, Range{})
			if err != nil || len(page.Records) != len(c.want) {
				t.Fatal(len(page.Records), err)
			}
			for i, r := range page.Records {
				if want := c.want[len(c.want)-1-i]; r.ID != want {
					t.Errorf("newest first: %d. is %d, want %d", i, r.ID, want)
				}
			}
			fresh, _, err := b.store.Since(t.Context(), c.f, Place{})
			if err != nil || len(fresh) != len(c.want) {
				t.Errorf("since the beginning: %d, %v", len(fresh), err)
			}
		})
	}
}

func TestPagesHaveEveryRecordOnce(t *testing.T) {
	b := openBoth(t, Config{File: "access.log", Format: "json"})
	list := eachSecond(150)
	for i := range list {
		list[i].Time = list[i].Time.Truncate(time.Minute) // many at a time
		b.log.Write(&list[i])
	}
	b.settle(len(list))
	for _, oldest := range []bool{true, false} {
		for _, limit := range []int{1, 7, 149, 150} {
			t.Run(fmt.Sprintf("oldest first %v, %d a page", oldest, limit), func(t *testing.T) {
				seen := map[ID]bool{}
				var last time.Time
				r := Range{Limit: limit, Oldest: oldest}
				for {
					page, err := b.store.Search(t.Context(), Filter{Service: "push"}, r)
					if err != nil || len(page.Records) == 0 || len(page.Records) > limit {
						t.Fatal(len(page.Records), err)
					}
					for _, x := range page.Records {
						if seen[x.ID] || !last.IsZero() && x.Time.Before(last) == oldest && !x.Time.Equal(last) {
							t.Fatalf("%v comes again, or out of order", x.ID)
						}
						seen[x.ID], last = true, x.Time
					}
					if page.Next == (Cursor{}) {
						break
					}
					text, _ := page.Next.MarshalText()
					if err := r.After.UnmarshalText(text); err != nil {
						t.Fatal(err)
					}
				}
				if len(seen) != len(list) {
					t.Errorf("%d records", len(seen))
				}
			})
		}
	}
	var c Cursor
	for _, bad := range []string{"x", "1", "1.", "1.0", "1.-2", "1.2.3x", "1.2 "} {
		if err := c.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is a cursor", bad)
		}
	}
}

// Requests to other ports than those of a configuration are counted by client,
// user and destination.
func TestPortsBeyond(t *testing.T) {
	b := openBoth(t, Config{File: "access.log", Format: "json"})
	now := time.Now().Truncate(time.Millisecond)
	for i, r := range []Record{
		{Host: "mail.example", Port: 25, User: "eve"},
		{Host: "mail.example", Port: 25, User: "eve"},
		{Host: "mail.example", Port: 25},
		{Host: "192.0.2.1", Port: 1023},
		{Host: "www.example", Port: 443},
		{Host: "www.example", Port: 1024},
		{Host: "www.example", Port: 65535},
		{Host: "stranger.example", Port: 25, Rule: policy.RuleClients},
		{Host: "no port"},
	} {
		r.ID, r.Time, r.Client, r.Method = NextID(), now.Add(time.Duration(i)*time.Second), netip.MustParseAddr("10.1.2.3"), "CONNECT"
		b.log.Write(&r)
	}
	await(t, "the records", func() bool {
		page, err := b.store.Search(t.Context(), Filter{}, Range{})
		return err == nil && len(page.Records) == 9
	})
	client := netip.MustParseAddr("10.1.2.3")
	for _, tt := range []struct {
		name     string
		from, to time.Duration
		ports    []policy.PortRange
		want     []PortUse
	}{
		{"default ports", 0, time.Minute, policy.DefaultPorts(), []PortUse{
			{client, "", "192.0.2.1", 1023, 1, now.Add(3 * time.Second).UTC()},
			{client, "", "mail.example", 25, 1, now.Add(2 * time.Second).UTC()},
			{client, "eve", "mail.example", 25, 2, now.Add(time.Second).UTC()},
		}},
		{"a part of the time", time.Second, 2 * time.Second, policy.DefaultPorts(), []PortUse{
			{client, "eve", "mail.example", 25, 1, now.Add(time.Second).UTC()},
		}},
		{"other ports", 0, time.Minute, []policy.PortRange{{First: 1, Last: 1024}}, []PortUse{
			{client, "", "www.example", 65535, 1, now.Add(6 * time.Second).UTC()},
		}},
		{"every port", 0, time.Minute, []policy.PortRange{{First: 1, Last: 65535}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := b.store.PortsBeyond(t.Context(), now.Add(tt.from), now.Add(tt.to), tt.ports)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}
