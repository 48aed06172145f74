package egress

import (
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"
)

// resting reports which parents are left alone for now.
func resting(d *Dialer) (list []int) {
	for i, p := range d.parents {
		p.mu.Lock()
		if p.pause > 0 {
			list = append(list, i)
		}
		p.mu.Unlock()
	}
	return list
}

// over lets the pauses of all parents be over.
func over(d *Dialer) {
	for _, p := range d.parents {
		p.mu.Lock()
		p.until = time.Time{}
		p.mu.Unlock()
	}
}

func TestParentFailover(t *testing.T) {
	const no503 = "HTTP/1.1 503 x\r\n\r\n"
	for _, tc := range []struct {
		name    string
		says    []string // "refuse" stands for a closed port
		status  int      // 200: a tunnel
		asked   []int    // how often each is asked
		resting []int    // afterwards
	}{
		{"the first works", []string{opened, opened}, 200, []int{1, 0}, nil},
		{"the first refuses connections", []string{"refuse", opened}, 200, []int{0, 1}, []int{0}},
		{"the first is unavailable", []string{no503, opened}, 200, []int{1, 1}, []int{0}},
		{"the first closes", []string{"", opened}, 200, []int{1, 1}, []int{0}},
		{"the first speaks something else", []string{"220 ESMTP\r\n", opened}, 200, []int{1, 1}, []int{0}},
		{"the first does not know the password", []string{"HTTP/1.1 407 x\r\n\r\n", opened}, 200, []int{1, 1}, []int{0}},
		{"two are ill", []string{"refuse", no503, opened}, 200, []int{0, 1, 1}, []int{0, 1}},
		{"the first forbids it", []string{"HTTP/1.1 403 x\r\n\r\n", opened}, 403, []int{1, 0}, nil},
		{"the destination is down", []string{no503, no503}, 503, []int{1, 1}, nil},
		{"one is ill, the destination is down", []string{no503, "refuse"}, 503, []int{1, 0}, []int{1}},
		{"none is reached", []string{"refuse", "refuse"}, 0, []int{0, 0}, []int{0, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var addrs []string
			var parents []*fakeParent
			for _, say := range tc.says {
				p := &fakeParent{addr: closedPort(t)}
				if say != "refuse" {
					p = serveParent(t, say)
				}
				parents, addrs = append(parents, p), append(addrs, p.addr)
			}
			d := dialer(t, through(addrs...))
			_, err := dial(t, d, "name.example:443")
			e := &ParentError{Status: 200}
			if err != nil && !errors.As(err, &e) || e.Status != tc.status {
				t.Errorf("got %v, want status %d", err, tc.status)
			}
			for i, p := range parents {
				if got := len(p.asked()); got != tc.asked[i] {
					t.Errorf("parent %d was asked %d times, want %d", i, got, tc.asked[i])
				}
			}
			if got := resting(d); !slices.Equal(got, tc.resting) {
				t.Errorf("resting: %v, want %v", got, tc.resting)
			}
		})
	}
}

// A parent that takes connections and says nothing has its share of the time.
func TestParentHangs(t *testing.T) {
	a, b := serveParent(t, "hang"), serveParent(t, opened)
	cfg := through(a.addr, b.addr)
	cfg.ConnectTimeout = 2 * time.Second
	d := dialer(t, cfg)
	if _, err := dial(t, d, "name.example:443"); err != nil {
		t.Fatal(err)
	}
	if got := resting(d); !slices.Equal(got, []int{0}) {
		t.Errorf("resting: %v", got)
	}
}

// An ill parent is skipped, then probed by one request, and used again when it
// is well.
func TestParentRecovers(t *testing.T) {
	a, b := serveParent(t, ""), serveParent(t, opened)
	d := dialer(t, through(a.addr, b.addr))
	ask := func(wantA, wantB int) {
		t.Helper()
		if _, err := dial(t, d, "name.example:443"); err != nil {
			t.Error(err)
		}
		if gotA, gotB := len(a.asked()), len(b.asked()); gotA != wantA || gotB != wantB {
			t.Errorf("asked %d and %d times, want %d and %d", gotA, gotB, wantA, wantB)
		}
	}
	ask(1, 1) // falls ill
	ask(0, 1) // rests
	over(d)
	ask(1, 1) // probed, still ill
	if got := d.parents[0].pause; got != 2*firstPause {
		t.Errorf("the second pause is %s", got)
	}
	ask(0, 1)
	a.tell(opened)
	over(d)
	ask(1, 0) // probed, well
	ask(1, 0)

	// All ill: all are tried, in order, and what works is well again.
	for _, p := range d.parents {
		p.failed(time.Now(), time.Now())
	}
	ask(1, 0)
	if got := resting(d); !slices.Equal(got, []int{1}) {
		t.Errorf("resting: %v", got)
	}
	// The last resort: the one that does not rest gives no answer.
	a.tell("")
	ask(1, 1)
	if got := resting(d); !slices.Equal(got, []int{0}) {
		t.Errorf("resting: %v", got)
	}
}

// A parent that takes connections and says nothing is found out by a tunnel. Plain
// requests, which could not tell, then go by another until it says something, and
// none of them waits to see.
func TestParentHangsForPlainRequests(t *testing.T) {
	by := func(d *Dialer) string { // the parent that a request goes to
		c, _, err := d.DialPlain(t.Context(), target(t, "name.example:80"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.RemoteAddr().String()
	}
	for _, answer := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 501 x\r\n\r\n"} {
		t.Run(strconv.Quote(answer), func(t *testing.T) {
			a, b := serveParent(t, "hang"), serveParent(t, opened)
			cfg := through("user:geheim@"+a.addr, b.addr)
			cfg.ConnectTimeout = 500 * time.Millisecond
			d := dialer(t, cfg)
			if got := by(d); got != a.addr {
				t.Fatalf("at first by %s", got)
			}
			if _, err := dial(t, d, "name.example:443"); err != nil { // finds it out
				t.Fatal(err)
			}
			a.asked()
			want := []string{"OPTIONS * HTTP/1.1"}
			for pause := 2 * firstPause; pause <= 4*firstPause; pause *= 2 {
				over(d)
				for range 3 {
					if got := by(d); got != b.addr {
						t.Errorf("while the first says nothing by %s", got)
					}
				}
				until(t, "the first was asked in vain", func() bool { p := d.parents[0]; p.mu.Lock(); defer p.mu.Unlock(); return p.pause == pause })
				if got := a.asked(); !slices.Equal(got, want) {
					t.Errorf("it was asked %q", got)
				}
			}
			a.tell(answer)
			over(d)
			if got := by(d); got != b.addr {
				t.Errorf("before the first has said something by %s", got)
			}
			until(t, "the first is well", func() bool { return resting(d) == nil })
			if got := by(d); got != a.addr {
				t.Errorf("when the first is well by %s", got)
			}
		})
	}
}

// A parent that takes connections and closes them, as a load balancer without
// servers does, is found out by a plain request. That it takes them proves nothing.
func TestParentClosesForPlainRequests(t *testing.T) {
	a, b := serveParent(t, ""), serveParent(t, opened)
	d := dialer(t, through(a.addr, b.addr))
	plain := func(not ...*Parent) (*Parent, net.Conn) {
		t.Helper()
		c, p, err := d.DialPlain(t.Context(), target(t, "name.example:80"), not...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return p, c
	}
	p, c := plain()
	if p.String() != a.addr {
		t.Fatalf("at first by %s", p)
	}
	_, _ = io.WriteString(c, "GET http://name.example/ HTTP/1.1\r\n\r\n")
	_, err := c.Read(make([]byte, 1))
	var e *ParentError
	if err := p.Unanswered(err); !errors.As(err, &e) || err.Error() != "parent proxy "+a.addr+": it closed the connection without an answer: EOF" {
		t.Errorf("%v", err)
	}
	if other, _ := plain(p); other.String() != b.addr {
		t.Errorf("again by %s", other)
	}
	if _, _, err := d.DialPlain(t.Context(), target(t, "name.example:80"), d.parents...); err != ErrNoOtherParent {
		t.Errorf("when all were asked: %v", err)
	}
	until(t, "it rests", func() bool { return slices.Equal(resting(d), []int{0}) })
	if p, _ := plain(); p.String() != b.addr {
		t.Errorf("then by %s", p)
	}
	over(d)
	until(t, "it was asked again", func() bool {
		plain()
		p := d.parents[0]
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.pause > firstPause
	})
}

// A parent of which an answer is awaited for long is asked for itself, and rests only
// if it says nothing then.
func TestAwait(t *testing.T) {
	silent, busy := serveParent(t, "hang"), serveParent(t, "HTTP/1.1 400 x\r\n\r\n")
	cfg := through(silent.addr, busy.addr)
	cfg.ConnectTimeout = 100 * time.Millisecond
	d := dialer(t, cfg)
	for _, p := range d.parents {
		for range 3 { // of which one asks at a time
			defer p.Await()()
		}
	}
	d.parents[1].Await()() // answered
	until(t, "the silent one rests", func() bool { return slices.Equal(resting(d), []int{0}) })
	until(t, "the other was asked", func() bool { return len(busy.asked()) > 0 })
	if got := resting(d); !slices.Equal(got, []int{0}) {
		t.Errorf("resting: %v", got)
	}
	if got := silent.asked(); !slices.Equal(slices.Compact(got), []string{"OPTIONS * HTTP/1.1"}) {
		t.Errorf("it was asked %q", got)
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestParentPause(t *testing.T) {
	now := time.Now()
	p := &Parent{dialer: dialer(t, Config{})}
	for range 2 { // more than one at a time
		if !p.admit(now, false) {
			t.Error("a healthy one is not admitted")
		}
	}
	p.failed(now, now)
	p.failed(now.Add(-time.Second), now) // under way at the same time
	if p.pause != firstPause || p.admit(now.Add(firstPause-1), false) {
		t.Errorf("pause %s", p.pause)
	}
	later := now.Add(firstPause)
	if !p.admit(later, false) || p.admit(later, false) {
		t.Error("not one request probes")
	}
	for range 10 {
		p.failed(later, later)
	}
	if p.pause != maxPause {
		t.Errorf("the longest pause is %s", p.pause)
	}
	p.worked()
	if !p.admit(later, false) {
		t.Error("not well")
	}
}

// Addresses of egress.hosts are asked for in turn, as without a parent.
func TestParentSeveralAddresses(t *testing.T) {
	p := serveParent(t, "HTTP/1.1 502 x\r\n\r\n")
	cfg := through(p.addr)
	cfg.Hosts = map[string]string{"two.example": "1.1.1.1,10.0.0.1,9.9.9.9"}
	d := dialer(t, cfg)
	if _, err := dial(t, d, "two.example:443"); err == nil {
		t.Error("no error")
	}
	if got := p.asked(); !slices.Equal(got, []string{"CONNECT 1.1.1.1:443 HTTP/1.1", "CONNECT 9.9.9.9:443 HTTP/1.1"}) {
		t.Errorf("asked %q", got)
	}
	p.tell("HTTP/1.1 403 x\r\n\r\n")
	if _, err := dial(t, d, "two.example:443"); err == nil {
		t.Error("no error")
	}
	if got := p.asked(); !slices.Equal(got, []string{"CONNECT 1.1.1.1:443 HTTP/1.1"}) {
		t.Errorf("asked %q", got)
	}
}
