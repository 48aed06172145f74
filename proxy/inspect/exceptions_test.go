package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"
)

// clock is what exceptions take for the time.
type clock struct{ time.Time }

func (c *clock) pass(d time.Duration) { c.Time = c.Add(d) }

func exceptions(lasting time.Duration) (*Exceptions, *clock) {
	c := &clock{time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC)}
	e := newExceptions()
	e.Now = func() time.Time { return c.Time }
	e.SetDuration(lasting)
	return e, c
}

func at(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }

// same is a pair of a CONNECT whose TLS names the same host.
func same(host string) Pair { return Pair{host, host} }

const pinned = "pinned.example"

// meet has a client accept the CA's certificate at a host, and ends the connection.
func meet(e *Exceptions, host string, client int) {
	e.Succeeded(same(host), at(client))
	e.Ended(same(host), at(client))
}

func TestExceptions(t *testing.T) {
	alert := func(e *Exceptions, client int) Verdict {
		return e.Refused(same(pinned), at(client), ByAlert, "unknown CA")
	}
	closes := func(e *Exceptions, client int) Verdict {
		return e.Refused(same(pinned), at(client), ByClosing, "closed")
	}
	trusting := func(f func(*Exceptions, *clock)) func(*Exceptions, *clock) {
		return func(e *Exceptions, c *clock) {
			for client := 1; client <= 3; client++ {
				meet(e, "elsewhere.example", client)
			}
			f(e, c)
		}
	}
	tests := []struct {
		name    string
		lasting time.Duration
		do      func(*Exceptions, *clock)
		exempt  []int // of clients 1 to 4
	}{
		{"one alert is enough", time.Hour, trusting(func(e *Exceptions, c *clock) { alert(e, 1) }), []int{1}},
		{"closing once is not", time.Hour, trusting(func(e *Exceptions, c *clock) { closes(e, 1) }), nil},
		{"nor many times within 30 s", time.Hour, trusting(func(e *Exceptions, c *clock) {
			for range 10 {
				closes(e, 1)
				c.pass(2900 * time.Millisecond)
			}
		}), nil},
		{"closing again after 30 s is", time.Hour, trusting(func(e *Exceptions, c *clock) { closes(e, 1); c.pass(30 * time.Second); closes(e, 1) }), []int{1}},
		{"not after more than a day", time.Hour, trusting(func(e *Exceptions, c *clock) {
			closes(e, 1)
			c.pass(23 * time.Hour)
			meet(e, "elsewhere.example", 1)
			c.pass(time.Hour)
			closes(e, 1)
		}), nil},
		{"another client's closing does not add", time.Hour, trusting(func(e *Exceptions, c *clock) { closes(e, 1); c.pass(time.Minute); closes(e, 2) }), nil},
		{"many clients exempt nothing for another", time.Hour, trusting(func(e *Exceptions, c *clock) { alert(e, 1); alert(e, 2); alert(e, 3) }), []int{1, 2, 3}},
		{"closing after a success", time.Hour, trusting(func(e *Exceptions, c *clock) {
			meet(e, pinned, 1)
			closes(e, 1)
			c.pass(time.Minute)
			closes(e, 1)
		}), nil},
		{"closing long after a success", time.Hour, trusting(func(e *Exceptions, c *clock) {
			meet(e, pinned, 1)
			c.pass(time.Hour)
			closes(e, 1)
			c.pass(time.Minute)
			closes(e, 1)
		}), []int{1}},
		{"closing beside a connection that lasts", time.Hour, trusting(func(e *Exceptions, c *clock) {
			e.Succeeded(same(pinned), at(1))
			c.pass(time.Hour)
			closes(e, 1)
			c.pass(time.Minute)
			closes(e, 1)
		}), nil},
		{"a success between", time.Hour, trusting(func(e *Exceptions, c *clock) {
			closes(e, 1)
			c.pass(time.Minute)
			meet(e, pinned, 1)
			c.pass(20 * time.Minute)
			closes(e, 1)
		}), nil},
		{"a success behind clears", time.Hour, trusting(func(e *Exceptions, c *clock) {
			closes(e, 1)
			c.pass(time.Minute)
			closes(e, 1)
			meet(e, pinned, 1)
		}), nil},
		{"but not what an alert says", time.Hour, trusting(func(e *Exceptions, c *clock) { alert(e, 1); meet(e, pinned, 1) }), []int{1}},
		{"it ends", time.Hour, trusting(func(e *Exceptions, c *clock) { alert(e, 1); c.pass(time.Hour) }), nil},
		{"a client without the CA", time.Hour, func(e *Exceptions, c *clock) { alert(e, 1); alert(e, 1) }, nil},
		{"one that has accepted it at the same host alone", time.Hour, func(e *Exceptions, c *clock) { meet(e, pinned, 1); alert(e, 1) }, nil},
		{"one that has accepted it long ago", time.Hour, trusting(func(e *Exceptions, c *clock) { c.pass(25 * time.Hour); alert(e, 1) }), nil},
		{"one without the CA, with without_ca: tunnel", time.Hour, func(e *Exceptions, c *clock) { e.TunnelWithoutCA(true); alert(e, 1) }, []int{1}},
		{"without_ca: deny again", time.Hour, func(e *Exceptions, c *clock) {
			e.TunnelWithoutCA(true)
			alert(e, 1)
			e.TunnelWithoutCA(false)
		}, nil},
		{"a client certificate", time.Hour, func(e *Exceptions, c *clock) { e.Presented(same(pinned), at(1)) }, []int{1}},
		{"an origin that asks for one", time.Hour, trusting(func(e *Exceptions, c *clock) { e.Asked(pinned, nil) }), nil},
		{"another name in TLS", time.Hour, trusting(func(e *Exceptions, c *clock) {
			e.Refused(Pair{pinned, "outer.example"}, at(1), ByAlert, "")
			e.Refused(Pair{"other.example", pinned}, at(1), ByAlert, "")
		}), nil},
		{"refused by the administrator", time.Hour, trusting(func(e *Exceptions, c *clock) {
			alert(e, 1)
			e.Set(pinned, Refused)
			alert(e, 1)
		}), nil},
		{"refused with all below", time.Hour, trusting(func(e *Exceptions, c *clock) {
			alert(e, 1)
			e.Set("*.example", Refused)
			alert(e, 1)
		}), nil},
		{"forgotten", time.Hour, trusting(func(e *Exceptions, c *clock) {
			alert(e, 1)
			e.Forget(pinned)
			closes(e, 1)
		}), nil},
		{"off", 0, trusting(func(e *Exceptions, c *clock) { alert(e, 1); alert(e, 1); e.Presented(same(pinned), at(1)) }), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, c := exceptions(tt.lasting)
			tt.do(e, c)
			var got []int
			for client := 1; client <= 4; client++ {
				if e.Exempt(pinned, pinned, at(client)) != "" {
					got = append(got, client)
				}
			}
			if !reflect.DeepEqual(got, tt.exempt) {
				t.Errorf("exempt for %v, want %v", got, tt.exempt)
			}
			if e.Exempt("third.example", "third.example", at(1)) != "" || e.Accepted(pinned) {
				t.Error("another host is exempt, or all clients are")
			}
		})
	}
}

func TestExceptionsVerdict(t *testing.T) {
	e, c := exceptions(time.Hour)
	meet(e, "elsewhere.example", 1)
	until := c.Add(time.Hour)
	for i, want := range []Verdict{{Exempt: true, Until: until}, {Until: until}} {
		if got := e.Refused(same(pinned), at(1), ByAlert, "unknown CA"); got != want {
			t.Errorf("refusal %d: %+v, want %+v", i+1, got, want)
		}
	}
	if got := e.Refused(same(pinned), at(2), ByAlert, "unknown CA"); got != (Verdict{WithoutCA: true}) {
		t.Errorf("a client without the CA: %+v", got)
	}
	want := []Exception{{
		Host: pinned, State: Automatic, Clients: []ExemptClient{{
			Client: at(1), Until: until, Evidence: ByAlert, Reason: "unknown CA", Refusals: 2, First: c.Time, Last: c.Time,
		}}, Reason: "unknown CA", Refusals: 2, First: c.Time, Last: c.Time, Until: until,
	}}
	if got := e.List(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for client := 2; client <= 3; client++ {
		meet(e, "elsewhere.example", client)
		e.Refused(same(pinned), at(client), ByAlert, "unknown CA")
	}
	if got := e.List(); len(got) != 1 || !got[0].Proposed || got[0].Everybody {
		t.Errorf("it is not proposed for everybody: %+v", got)
	}
	c.pass(2 * time.Hour)
	if got := e.List(); len(got) != 0 {
		t.Errorf("what is over is listed: %+v", got)
	}
}

// A client is one without the CA if it has refused it at two hosts, and accepted none since.
func TestWithoutCA(t *testing.T) {
	e, c := exceptions(time.Hour)
	is := func(want bool) {
		t.Helper()
		if got := e.WithoutCA(at(1)); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	refuse := func(host string) { e.Refused(same(host), at(1), ByAlert, "") }
	refuse("a.example")
	refuse("a.example")
	is(false)
	refuse("b.example")
	is(true)
	meet(e, "c.example", 1)
	is(false)
	c.pass(25 * time.Hour)
	refuse("a.example")
	refuse("b.example")
	is(true)
	c.pass(25 * time.Hour)
	is(false)
}

func TestActs(t *testing.T) {
	var a acts
	for pattern, state := range map[string]string{
		"*.google.com": Refused, "ok.google.com": Accepted, "*.ok.google.com": Accepted, "10.0.0.0/8": Refused, "10.1.0.0/16": Accepted,
		"10.1.2.3": Refused, "2001:db8::/32": Accepted,
	} {
		a = a.with(pattern, act{state: state})
	}
	for host, want := range map[string]string{
		"google.com": "", "www.google.com": Refused, "a.b.google.com": Refused, "notgoogle.com": "", "ok.google.com": Accepted, "x.ok.google.com": Accepted,
		"10.2.2.2": Refused, "10.1.1.1": Accepted, "10.1.2.3": Refused, "192.0.2.1": "", "2001:db8::7": Accepted, "2001:db9::7": "",
	} {
		if got := a.state(host); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
		if n := testing.AllocsPerRun(10, func() { a.state(host) }); n != 0 {
			t.Errorf("%s: %v allocations", host, n)
		}
	}
}

// Whatever clients do, what is kept is bounded, one does not push out another, and what an
// administrator has said stays.
func TestExceptionsAreBounded(t *testing.T) {
	e, c := exceptions(time.Hour)
	e.Set("good.example", Accepted)
	e.Set("bad.example", Refused)
	meet(e, "elsewhere.example", 1)
	e.Refused(same(pinned), at(1), ByAlert, "")
	meet(e, "elsewhere.example", 2)
	e.Refused(same("own.example"), at(2), ByAlert, "")
	hosts := func(n int) string { return fmt.Sprintf("h%d.example", n) }
	for i := range 5000 { // a client with many names
		c.pass(time.Millisecond)
		e.Succeeded(same(hosts(i)), at(2))
		e.Refused(same(hosts(i)), at(2), ByClosing, "")
	}
	device := func(i int) netip.Addr { // one with many addresses
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 12: byte(i >> 16), byte(i >> 8), byte(i)})
	}
	for i := range 5000 {
		c.pass(time.Millisecond)
		e.Succeeded(same(pinned), device(i))
	}
	if e.Exempt(pinned, pinned, at(1)) == "" || e.Exempt("own.example", "own.example", at(2)) == "" {
		t.Error("an exemption was pushed out")
	}
	for i := range 200_000 {
		c.pass(time.Millisecond)
		e.Succeeded(same(pinned), at(i))
	}
	n, pairs := 0, 0
	for i := range e.learned.shards {
		s := &e.learned.shards[i]
		if len(s.clients) > maxOfShard || len(s.grants) > len(s.encounters) {
			t.Errorf("%d clients in a shard", len(s.clients))
		}
		for addr, c := range s.clients {
			if !addr.Is4() {
				n++
			}
			if len(c.encounters) > maxPairs {
				t.Errorf("%d pairs of a client", len(c.encounters))
			}
			pairs += len(c.encounters)
		}
	}
	if n > maxOfNetwork || int64(pairs) != e.learned.pairs.Load() {
		t.Errorf("%d clients in a network; %d pairs, counted %d", n, pairs, e.learned.pairs.Load())
	}
	if !e.Accepted("good.example") || (*e.acts.Load())["bad.example"].state != Refused {
		t.Error("an administrator's word is gone")
	}
}

func TestExceptionsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	e, err := OpenExceptions(dir)
	if err != nil {
		t.Fatal(err)
	}
	e.SetDuration(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		e.Keep(ctx, dir, func(err error) { t.Error(err) })
	}()
	meet(e, "elsewhere.example", 1)
	e.Refused(same(pinned), at(1), ByAlert, "unknown CA")
	e.Refused(Pair{pinned, "outer.example"}, at(1), ByAlert, "unknown CA")
	e.Set("good.example", Accepted)
	e.Set("*.bad.example", Refused)
	cancel()
	<-kept
	info, err := os.Stat(filepath.Join(dir, exceptionsFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	again, err := OpenExceptions(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := asJSON(t, again.List()), asJSON(t, e.List()); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if again.Exempt(pinned, pinned, at(1)) == "" || again.Exempt(pinned, "outer.example", at(1)) == "" ||
		again.Exempt(pinned, pinned, at(2)) != "" || !again.Accepted("good.example") {
		t.Error("exempt is not what was")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOpenExceptionsErrors(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":     "hello",
		"a bad host":  `[{"host": "a b", "state": "automatic"}]`,
		"not lower":   `[{"host": "A.example", "state": "automatic"}]`,
		"a bad state": `[{"host": "a.example", "state": "maybe"}]`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, exceptionsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenExceptions(dir); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func asJSON(t *testing.T, list []Exception) string {
	t.Helper()
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Of a file of an older version the words of administrators stay, and what was learnt for
// one client; not what was learnt for everybody.
func TestOpenOlderExceptions(t *testing.T) {
	dir := t.TempDir()
	text := `[
  {"host": "pinned.example", "state": "automatic", "everybody": true, "reason": "unknown CA", "refusals": 6, "clients": [
    {"client": "10.0.0.1", "until": "2099-01-01T00:00:00Z"}], "first": "2026-11-01T00:00:00Z", "last": "2026-11-01T00:00:00Z", "until": "2099-01-01T00:00:00Z"},
  {"host": "all.example", "state": "automatic", "everybody": true, "clients": [], "reason": "", "refusals": 6,
    "first": "2026-11-01T00:00:00Z", "last": "2026-11-01T00:00:00Z", "until": "2099-01-01T00:00:00Z"},
  {"host": "good.example", "state": "accepted", "everybody": true, "clients": [], "reason": "", "refusals": 0,
    "first": "2026-11-01T00:00:00Z", "last": "2026-11-01T00:00:00Z"},
  {"host": "bad.example", "state": "refused", "everybody": false, "clients": [], "reason": "", "refusals": 0,
    "first": "2026-11-01T00:00:00Z", "last": "2026-11-01T00:00:00Z"}]`
	if err := os.WriteFile(filepath.Join(dir, exceptionsFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := OpenExceptions(dir)
	if err != nil {
		t.Fatal(err)
	}
	if e.Exempt(pinned, pinned, at(1)) == "" || e.Exempt(pinned, pinned, at(2)) != "" || e.Exempt("all.example", "all.example", at(2)) != "" {
		t.Error("exempt is not what was learnt for the client alone")
	}
	if !e.Accepted("good.example") || len(e.List()) != 3 {
		t.Errorf("%+v", e.List())
	}
}

// bare is a sharded map and nothing else, to compare with.
type bare [shards]struct {
	mu sync.RWMutex
	m  map[netip.Addr]*clientRecord
}

// Asking and learning cost about what a look-up in a sharded map does, also with 50,000
// clients.
func BenchmarkExceptions(b *testing.B) {
	const clients = 50_000
	e, _ := exceptions(time.Hour)
	e.Now = nil
	var plain bare
	for i := range plain {
		plain[i].m = map[netip.Addr]*clientRecord{}
	}
	addrs := make([]netip.Addr, clients)
	for i := range addrs {
		addrs[i] = at(i)
		plain[i%shards].m[addrs[i]] = &clientRecord{}
		meet(e, "elsewhere.example", i)
		meet(e, "www.example.com", i)
		e.Refused(same(pinned), addrs[i], ByAlert, "")
	}
	for _, x := range []struct {
		name string
		do   func(netip.Addr)
	}{
		{"bare map", func(a netip.Addr) {
			s := &plain[int(a.As4()[3])%shards]
			s.mu.RLock()
			defer s.mu.RUnlock()
			if s.m[a] == nil {
				b.Fatal("missing")
			}
		}},
		{"ask, none", func(a netip.Addr) { e.Exempt("www.example.com", "www.example.com", a) }},
		{"ask, exempt", func(a netip.Addr) { e.Exempt(pinned, pinned, a) }},
		{"success", func(a netip.Addr) { e.Succeeded(same("www.example.com"), a) }},
		{"its end", func(a netip.Addr) { e.Ended(same("www.example.com"), a) }},
		{"refusal", func(a netip.Addr) { e.Refused(same(pinned), a, ByAlert, "") }},
	} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					x.do(addrs[i*7919%clients])
				}
			})
		})
	}
}
