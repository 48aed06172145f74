package health

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// It takes three answers to change one's mind, and one that agrees to begin anew.
func TestThreeAnswersInARow(t *testing.T) {
	const proxy = "a.example:3128"
	p := New()
	p.Watch([]string{proxy})
	no := errors.New("connection refused")
	for i, c := range []struct {
		answer error
		up     bool
	}{
		{nil, true}, {no, true}, {no, true}, {nil, true},
		{no, true}, {no, true}, {no, false}, {no, false},
		{nil, false}, {nil, false}, {no, false},
		{nil, false}, {nil, false}, {nil, true}, {nil, true},
	} {
		p.note(proxy, c.answer)
		if p.Up(proxy) != c.up {
			t.Fatalf("after answer %d Up is %v", i, !c.up)
		}
	}
}

// What a proxy may do in place of an answer.
const (
	closes = "closes"
	resets = "resets"
)

// answering answers everybody at addr, until the test ends or what is returned is
// called. An empty answer is none.
func answering(t *testing.T, addr, answer string) (proxy string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer c.Close()
				if answer == "" {
					_, _ = io.Copy(io.Discard, c) // until the other side leaves
					return
				}
				_, _ = http.ReadRequest(bufio.NewReader(c))
				switch answer {
				case resets:
					_ = c.(*net.TCPConn).SetLinger(0)
				case closes:
				default:
					_, _ = io.WriteString(c, answer)
				}
			})
		}
	})
	stop = sync.OnceFunc(func() {
		l.Close()
		open.Wait()
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// Whatever a proxy answers, it is well, unless it says otherwise.
func TestAsk(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"Espalier", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
		{"not for strangers", "HTTP/1.1 403 Forbidden\r\n\r\n", ""},
		{"does not know OPTIONS", "HTTP/1.0 501 Not Implemented\r\n\r\n", ""},
		{"no HTTP", "what?\r\n", ""},
		{"overloaded", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "says that it is overloaded (503)"},
		{"silent", "", "takes connections, but says nothing"},
		{"closes", closes, "accepts connections and closes them without an answer"},
		{"resets", resets, "accepts connections and closes them without an answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			proxy, _ := answering(t, "127.0.0.1:0", c.answer)
			got := ""
			if err := ask(t.Context(), proxy); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A real listener that is closed and opened again.
func TestClosedListener(t *testing.T) {
	const well = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	proxy, stop := answering(t, "127.0.0.1:0", well)
	p := New()
	p.Watch([]string{proxy})
	for range confirmations {
		if p.probe(t.Context()) {
			t.Fatal("a listener that is open gives rise to doubt")
		}
	}
	stop()
	for i := range confirmations {
		if doubt := p.probe(t.Context()); doubt != (i < confirmations-1) {
			t.Errorf("probe %d: doubt is %v", i, doubt)
		}
	}
	if p.Up(proxy) || p.Changed().IsZero() {
		t.Error("a closed listener counts as up")
	}
	st := p.Status()
	if len(st) != 1 || st[0].Proxy != proxy || st[0].Up || !strings.Contains(st[0].Error, "refused") {
		t.Errorf("Status() = %+v", st)
	}
	want := "# HELP espalier_pac_proxy_up 1 where a proxy of pac.proxies is well; one that is not stands last in the script.\n" +
		"# TYPE espalier_pac_proxy_up gauge\nespalier_pac_proxy_up{proxy=\"" + proxy + "\"} 0\n"
	if err := testutil.CollectAndCompare(p, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	answering(t, proxy, well)
	for range confirmations {
		p.probe(t.Context())
	}
	if !p.Up(proxy) || p.Status()[0].Error != "" {
		t.Errorf("an open listener counts as down: %+v", p.Status())
	}
}

// What is known of a proxy survives a reload that keeps it.
func TestWatchAgain(t *testing.T) {
	p := New()
	p.Watch([]string{"a:1", "b:1"})
	for range confirmations {
		p.note("a:1", errors.New("no"))
		p.note("b:1", errors.New("no"))
	}
	p.Watch([]string{"a:1", "c:1"})
	p.note("b:1", errors.New("no")) // is on its way
	if p.Up("a:1") || !p.Up("b:1") || !p.Up("c:1") || len(p.Status()) != 2 {
		t.Errorf("Status() = %+v", p.Status())
	}
}

// Down is known within ten seconds and two, and at once where Hurry is called.
func TestRunRechecksSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var answer error
		p := New()
		p.ask = func(context.Context, string) error {
			mu.Lock()
			defer mu.Unlock()
			return answer
		}
		set := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			answer = err
		}
		p.Watch([]string{"a:1"})
		<-p.wake
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { p.Run(ctx) })
		synctest.Wait()
		set(errors.New("no"))
		time.Sleep(interval + 2*recheck - time.Millisecond)
		if !p.Up("a:1") {
			t.Error("two answers were enough")
		}
		time.Sleep(2 * time.Millisecond)
		if p.Up("a:1") {
			t.Error("three answers were not enough")
		}
		set(nil)
		p.Hurry()
		time.Sleep(2*recheck + time.Millisecond)
		if !p.Up("a:1") {
			t.Error("Hurry has not led to a probe")
		}
		cancel()
		wg.Wait()
	})
}
