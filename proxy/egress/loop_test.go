package egress

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestIsLoop(t *testing.T) {
	p, q := serveParent(t, opened), serveParent(t, opened)
	d := dialer(t, through(p.addr, q.addr))
	before := dialer(t, through(p.addr)) // of the configuration before
	direct := dialer(t, Config{})
	for _, tc := range []struct {
		name  string
		via   []string
		want  bool
		marks int // index of the parent that is known to lead back; -1: none
	}{
		{"none", nil, false, -1},
		{"another", []string{"1.1 espalier", "1.0 fred, 1.1 espalier-abcdefghijklmnop-1-0"}, false, -1},
		{"no parent's", []string{direct.Via()}, true, -1},
		{"a parent's of before", []string{before.parents[0].Via()}, true, -1},
		{"a parent's", []string{d.parents[1].Via()}, true, 1},
		{"among others", []string{"1.1 a", "1.1 b (c), " + d.parents[0].Via() + " (d), HTTP/2 e"}, true, 0},
		{"one that begins so", []string{d.parents[0].Via() + "1"}, true, -1},
		{"at the end of another", []string{"1.1 x" + d.parents[0].token}, true, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, p := range d.parents {
				p.loopsUntil(time.Time{})
			}
			if got := d.IsLoop(strings.Join(tc.via, ", ")); got != tc.want {
				t.Errorf("got %v", got)
			}
			for i, p := range d.parents {
				if p.loops() != (i == tc.marks) {
					t.Errorf("parent %d leads back: %v", i, p.loops())
				}
			}
		})
	}
}

// A question is known where it comes back, and its parent is not used from then on.
func TestOwnQuestion(t *testing.T) {
	p, q := serveParent(t, opened), serveParent(t, opened)
	d := dialer(t, through(p.addr, q.addr))
	for _, host := range []string{"", "espalier.invalid", "x.espalier.invalid", d.parents[0].token, d.parents[0].token + ".example"} {
		if d.OwnQuestion(host) {
			t.Errorf("%q is a question", host)
		}
	}
	if !d.OwnQuestion(d.parents[0].token + questionZone) {
		t.Fatal("not known")
	}
	if _, err := dial(t, d, "name.example:443"); err != nil {
		t.Errorf("by the other parent: %v", err)
	}
	if len(p.asked()) != 0 || len(q.asked()) != 1 {
		t.Error("the parent that leads back was asked")
	}
	d.OwnQuestion(d.parents[1].token + questionZone)
	want := "it leads back to this proxy; let egress.parent name another proxy"
	if _, err := dial(t, d, "name.example:443"); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("when both lead back: %v", err)
	}
	if _, _, err := d.DialPlain(t.Context(), target(t, "name.example:80")); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("plain, when both lead back: %v", err)
	}
}

// Watch asks at once, after many connections, and when a parent is well again, and
// tells of changes.
func TestWatch(t *testing.T) {
	const no = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	p := serveParent(t, no)
	d := dialer(t, through("user:pass@"+p.addr))
	d.parents[0].loopsUntil(time.Now().Add(loopTTL / 2)) // from a question before
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	told := make(chan string, 8)
	go func() {
		defer close(done)
		d.Watch(ctx, func(parent string, loops bool) { told <- fmt.Sprint(parent == p.addr, loops) })
	}()
	question := func() {
		t.Helper()
		var got []string
		until(t, "a question", func() bool { got = append(got, p.asked()...); return len(got) > 0 })
		if want := "GET http://" + d.parents[0].token + questionZone + "/ HTTP/1.1"; got[0] != want {
			t.Errorf("asked %q, want %q", got[0], want)
		}
	}
	question()
	for range watchConnections {
		if c, _, err := d.DialPlain(t.Context(), target(t, "name.example:80")); err == nil {
			c.Close()
		}
	}
	question()
	until(t, "it does not lead back", func() bool { return !d.parents[0].loops() })
	d.OwnQuestion(d.parents[0].token + questionZone)
	d.parents[0].failed(time.Now(), time.Now())
	p.tell("hang") // so that no answer says that it does not lead back
	d.parents[0].worked()
	question()
	cancel()
	<-done
	if got := <-told; got != "true true" {
		t.Errorf("told %q", got)
	}
	if len(told) > 0 {
		t.Errorf("told %q too", <-told)
	}
}

// The Via of the client goes on to the parent.
func TestViaOfClient(t *testing.T) {
	p := serveParent(t, opened)
	d := dialer(t, through(p.addr))
	c, err := d.Dial(WithVia(t.Context(), []string{"1.1 other", "1.1 bad\r\nX: y", "1.0 a, 2 b"}), target(t, "name.example:443"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	want := "\r\nVia: 1.1 other\r\nVia: 1.0 a, 2 b\r\nVia: " + d.parents[0].Via() + "\r\n\r\n"
	if len(p.got) != 1 || !strings.HasSuffix(p.got[0], want) {
		t.Errorf("asked %q", p.got)
	}
}
