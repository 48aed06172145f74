package inspect

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// clock is what exceptions take for the time.
type clock struct{ time.Time }

func (c *clock) pass(d time.Duration) { c.Time = c.Add(d) }

func exceptions(lasting time.Duration) (*Exceptions, *clock) {
	c := &clock{time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC)}
	e := newExceptions()
	e.now = func() time.Time { return c.Time }
	e.SetDuration(lasting)
	return e, c
}

func at(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

const pinned = "pinned.example"

func TestExceptions(t *testing.T) {
	sure := func(e *Exceptions, client int) Verdict { return e.Refused(pinned, at(client), "unknown CA", true) }
	perhaps := func(e *Exceptions, client int) Verdict { return e.Refused(pinned, at(client), "closed", false) }
	tests := []struct {
		name    string
		lasting time.Duration
		do      func(*Exceptions, *clock)
		exempt  []int // of clients 1 to 4
	}{
		{"once is not enough", time.Hour, func(e *Exceptions, c *clock) { sure(e, 1) }, nil},
		{"twice is", time.Hour, func(e *Exceptions, c *clock) { sure(e, 1); sure(e, 1) }, []int{1}},
		{"twice without a word", time.Hour, func(e *Exceptions, c *clock) { perhaps(e, 1); perhaps(e, 1) }, []int{1}},
		{"not twice in a day", time.Hour, func(e *Exceptions, c *clock) { sure(e, 1); c.pass(24 * time.Hour); sure(e, 1) }, nil},
		{"another client's do not add", time.Hour, func(e *Exceptions, c *clock) { sure(e, 1); sure(e, 2) }, nil},
		{"who has taken it before may close", time.Hour, func(e *Exceptions, c *clock) {
			e.Succeeded(pinned, at(1))
			perhaps(e, 1)
			perhaps(e, 1)
		}, nil},
		{"long before", time.Hour, func(e *Exceptions, c *clock) {
			e.Succeeded(pinned, at(1))
			c.pass(time.Hour)
			perhaps(e, 1)
			perhaps(e, 1)
		}, []int{1}},
		{"an alert counts in any case", time.Hour, func(e *Exceptions, c *clock) {
			e.Succeeded(pinned, at(1))
			sure(e, 1)
			sure(e, 1)
		}, []int{1}},
		{"it ends", time.Hour, func(e *Exceptions, c *clock) { sure(e, 1); sure(e, 1); c.pass(time.Hour) }, nil},
		{"clients without the CA exempt nothing for others", time.Hour, func(e *Exceptions, c *clock) {
			for client := range 3 {
				sure(e, client+1)
				sure(e, client+1)
			}
		}, []int{1, 2, 3}},
		{"clients that trust the CA do", time.Hour, func(e *Exceptions, c *clock) {
			for client := range 3 {
				e.Succeeded("elsewhere.example", at(client+1))
				sure(e, client+1)
				sure(e, client+1)
			}
		}, []int{1, 2, 3, 4}},
		{"two of them are not enough", time.Hour, func(e *Exceptions, c *clock) {
			for client := range 2 {
				e.Succeeded("elsewhere.example", at(client+1))
				sure(e, client+1)
				sure(e, client+1)
			}
		}, []int{1, 2}},
		{"refused by the administrator", time.Hour, func(e *Exceptions, c *clock) {
			sure(e, 1)
			sure(e, 1)
			e.Set(pinned, Refused)
			sure(e, 1)
			sure(e, 1)
		}, nil},
		{"accepted by the administrator", time.Hour, func(e *Exceptions, c *clock) {
			e.Set(pinned, Accepted)
			c.pass(1000 * time.Hour)
		}, []int{1, 2, 3, 4}},
		{"forgotten", time.Hour, func(e *Exceptions, c *clock) {
			sure(e, 1)
			sure(e, 1)
			e.Forget(pinned)
			sure(e, 1)
		}, nil},
		{"off", 0, func(e *Exceptions, c *clock) { sure(e, 1); sure(e, 1); sure(e, 1) }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, c := exceptions(tt.lasting)
			tt.do(e, c)
			var got []int
			for client := 1; client <= 4; client++ {
				if e.Exempt(pinned, at(client)) {
					got = append(got, client)
				}
			}
			if !reflect.DeepEqual(got, tt.exempt) {
				t.Errorf("exempt for %v, want %v", got, tt.exempt)
			}
			if e.Exempt("other.example", at(1)) {
				t.Error("another host is exempt")
			}
		})
	}
}

func TestExceptionsVerdict(t *testing.T) {
	e, c := exceptions(time.Hour)
	until := c.Add(time.Hour)
	for i, want := range []Verdict{{}, {Exempt: true, Until: until}, {Until: until}} {
		if got := e.Refused(pinned, at(1), "unknown CA", true); got != want {
			t.Errorf("refusal %d: %+v, want %+v", i+1, got, want)
		}
	}
	want := []Exception{{
		Host: pinned, State: Automatic, Clients: []ExemptClient{{at(1), until}}, Reason: "unknown CA",
		Refusals: 3, First: c.Time, Last: c.Time, Until: until,
	}}
	if got := e.List(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	c.pass(2 * time.Hour)
	if got := e.List(); len(got) != 0 {
		t.Errorf("what is over is listed: %+v", got)
	}
}

// Whatever clients do, what is kept is bounded, and what an administrator has
// said stays.
func TestExceptionsAreBounded(t *testing.T) {
	e, c := exceptions(time.Hour)
	e.Set("good.example", Accepted)
	e.Set("bad.example", Refused)
	for i := range maxHosts + 100 {
		host := fmt.Sprintf("h%d.example", i)
		c.pass(time.Millisecond)
		e.Refused(host, at(i%50), "", true)
		e.Refused(host, at(i%50), "", true)
	}
	for i := range maxClientsOfHost + 10 {
		e.Refused(pinned, at(i), "", true)
		e.Refused(pinned, at(i), "", true)
	}
	for i := range maxClients + 10 {
		e.Succeeded(pinned, at(i))
	}
	if n := len(e.hosts); n > maxHosts+2 {
		t.Errorf("%d hosts", n)
	}
	if n := len(e.hosts[pinned].clients); n != maxClientsOfHost {
		t.Errorf("%d clients of a host", n)
	}
	if n := len(e.clients); n != maxClients {
		t.Errorf("%d clients", n)
	}
	for _, c := range e.clients {
		if len(c.hosts) > maxHostsOfClient {
			t.Errorf("%d hosts of a client", len(c.hosts))
		}
	}
	if !e.Exempt("good.example", at(1)) || e.hosts["bad.example"] == nil {
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
	e.Refused(pinned, at(1), "unknown CA", true)
	e.Refused(pinned, at(1), "unknown CA", true)
	e.Set("good.example", Accepted)
	e.Set("bad.example", Refused)
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
	if got, want := fmt.Sprint(again.Count()), fmt.Sprint(e.Count()); got != want || len(again.List()) != 3 {
		t.Errorf("%s, want %s", got, want)
	}
	if !again.Exempt(pinned, at(1)) || again.Exempt(pinned, at(2)) || !again.Exempt("good.example", at(2)) {
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

func BenchmarkExempt(b *testing.B) {
	e, _ := exceptions(time.Hour)
	for i := range 500 {
		e.Set(fmt.Sprintf("h%d.example", i), Accepted)
	}
	b.ReportAllocs()
	for b.Loop() {
		e.Exempt("www.example.com", at(1))
	}
}
