package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"espalier/policy"
	"espalier/proxy/accesslog"
)

// Services of the soak's traffic. What the last one carries is cut by clients
// while bytes are on their way, so that only bounds are known for it.
const (
	soakTunnels = "apple-other"
	soakPlain   = "other"
	soakCut     = "push"
)

// account is what was carried for a service.
type account struct {
	up, down int64
	requests map[policy.Action]int64
}

// ledger is the clients' own account of all that they did.
type ledger struct {
	mu       sync.Mutex
	services map[string]*account
	failed   error // the first
}

func newLedger() *ledger { return &ledger{services: map[string]*account{}} }

func (l *ledger) of(service string) *account {
	a := l.services[service]
	if a == nil {
		a = &account{requests: map[policy.Action]int64{}}
		l.services[service] = a
	}
	return a
}

// add notes a finished request; with bytes of an open tunnel, action is empty.
func (l *ledger) add(service string, action policy.Action, up, down int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of(service)
	a.up, a.down = a.up+up, a.down+down
	if action != "" {
		a.requests[action]++
	}
}

func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
	}
}

// soaker is what the clients of a soak share.
type soaker struct {
	*ledger
	p        *process
	stop     chan struct{}
	tunnels  int // port of the origin of tunnels
	plain    int // port of the origin of plain requests
	hiccup   atomic.Bool
	distinct atomic.Int64 // names that were looked up
}

// reloads reads good and bad configurations in turn, and lets names fail.
func (s *soaker) reloads(good, bad string) {
	for i := 0; s.resting(700 * time.Millisecond); i++ {
		s.hiccup.Store(i%4 == 3)
		text := good
		if i%2 == 1 {
			text = bad
		}
		next := s.p.config + ".next"
		if err := errors.Join(os.WriteFile(next, []byte(s.p.whole(text)), 0o600), os.Rename(next, s.p.config)); err != nil {
			s.fail(err)
			return
		}
	}
}

// sample is what the process holds.
type sample struct{ rss, heap, fds float64 }

// Hours of a school day in minutes: every kind of traffic at once, with faults
// all the while. At the end the clients' own ledger, the records and the counters
// agree, and nothing has grown.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	s := &soaker{ledger: newLedger(), stop: make(chan struct{})}
	s.tunnels = listen(t, "127.0.0.1:0", echoOrReset).Port
	s.plain = listen(t, "127.0.0.1:0", soakOrigin).Port
	pushAt := ownLoopback(t, pushPort)
	listen(t, net.JoinHostPort(pushAt, fmt.Sprint(pushPort)), soakOrigin)
	good := fmt.Sprintf(`log: {access: {rotate: 0}}
egress:
  allow: [loopback]
  hosts: {"*.soak.apple.com": 127.0.0.1, "*.push.apple.com": %s}
  dns: ["%s"]
rules:
  - {name: "no", when: {hosts: ["*.denied.example"]}, then: deny}
`, pushAt, nameServer(t, s.answer))
	s.p = launch(t, good)
	before := s.sample()
	const goroutines = "go_goroutines"
	goroutinesBefore := s.p.metric(goroutines)

	var clients sync.WaitGroup
	const idle = 1000
	for _, kind := range []struct {
		count int
		run   func(int) error
	}{{idle, s.idle}, {60, s.busy}, {100, s.plainRequests}, {20, s.refusals}, {20, s.webSocket}, {20, s.abort}} {
		for i := range kind.count {
			clients.Go(func() {
				if err := kind.run(i); err != nil {
					s.fail(err)
				}
			})
		}
	}
	s.p.await("all idle tunnels", func() bool {
		return s.p.metric(`espalier_tunnels{service="`+soakTunnels+`"}`) >= idle
	})
	clients.Go(func() { s.reloads(good, "proxy: {idle_timeout: never}\n") })
	length := soak(t)
	samples := s.watch(length)
	close(s.stop)
	clients.Wait()
	if s.failed != nil {
		t.Fatal(s.failed)
	}
	s.p.write(good)
	s.p.signal(syscall.SIGHUP) // also closes connections that are kept
	var stays string
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(stays)
		}
	})
	s.p.await("what was open to be closed", func() bool {
		n, fds := s.p.metric(goroutines), s.sample().fds
		stays = fmt.Sprintf("%v goroutines and %v descriptors, before %v and %v", n, fds, goroutinesBefore, before.fds)
		return n <= goroutinesBefore+10 && fds <= before.fds+10
	})
	s.balance(t)
	flat(t, samples)
	if n := s.p.metric("espalier_panics_total") + s.p.metric(recordsLost); n != 0 {
		t.Errorf("%v panics and lost records", n)
	}
	s.p.signal(syscall.SIGTERM)
	s.p.exits(0)
	for service, a := range s.services {
		t.Logf("%s: %d bytes up, %d down, requests %v", service, a.up, a.down, a.requests)
	}
	last := samples[len(samples)-1]
	t.Logf("%s: RSS %.1f MB, heap %.1f MB, %v descriptors under load; before %.1f MB, %.1f MB, %v",
		length, last.rss/1e6, last.heap/1e6, last.fds, before.rss/1e6, before.heap/1e6, before.fds)
}

func (s *soaker) sample() sample {
	return sample{s.p.metric("process_resident_memory_bytes"), s.p.metric("go_memstats_heap_alloc_bytes"), s.p.metric("process_open_fds")}
}

// watch takes samples for so long.
func (s *soaker) watch(length time.Duration) []sample {
	ctx, cancel := context.WithTimeout(s.p.t.Context(), length)
	defer cancel()
	var list []sample
	tick := time.NewTicker(max(length/200, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			list = append(list, s.sample())
		case <-ctx.Done():
			return append(list, s.sample())
		}
	}
}

// flat compares the last third of a long soak with the third before it: the most
// memory, and the least heap, which is what it holds after a collection.
func flat(t *testing.T, list []sample) {
	t.Helper()
	if len(list) < 100 {
		return // too short to say
	}
	third := len(list) / 3
	middle, end := list[third:2*third], list[2*third:]
	rss := func(s sample) float64 { return s.rss }
	heap := func(s sample) float64 { return s.heap }
	for _, c := range []struct {
		name   string
		of     func(sample) float64
		pick   func(func(sample) float64, []sample) float64
		margin float64
	}{{"RSS", rss, most, 0.15}, {"heap after a collection", heap, least, 0.25}} {
		before, after := c.pick(c.of, middle), c.pick(c.of, end)
		t.Logf("%s: %.1f MB in the second third, %.1f MB in the last", c.name, before/1e6, after/1e6)
		if after > before*(1+c.margin)+4e6 {
			t.Errorf("%s has grown from %.1f to %.1f MB", c.name, before/1e6, after/1e6)
		}
	}
}

func most(of func(sample) float64, list []sample) float64 {
	return of(slices.MaxFunc(list, func(a, b sample) int { return int(of(a) - of(b)) }))
}

func least(of func(sample) float64, list []sample) float64 {
	return of(slices.MinFunc(list, func(a, b sample) int { return int(of(a) - of(b)) }))
}

// balance compares the clients' ledger with the records and the counters.
func (s *soaker) balance(t *testing.T) {
	t.Helper()
	var want int64
	for _, a := range s.services {
		for _, n := range a.requests {
			want += n
		}
	}
	s.p.await("the last records", func() bool { return s.p.metric(recordsAll) >= float64(want) })
	recorded := newLedger()
	var bad int
	s.p.await("the last flush", func() bool { // half a second after the last request
		recorded = newLedger()
		f, err := os.Open(filepath.Join(s.p.data, "access.log"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var n int64
		bad, err = accesslog.Read(f, func(r *accesslog.Record) error {
			recorded.add(r.Service, r.Action, r.Up, r.Down)
			n++
			return nil
		})
		return err != nil || n >= want
	})
	if bad != 0 {
		t.Errorf("%d lines are no record", bad)
	}
	for service, client := range s.services {
		record := recorded.of(service)
		exact := service != soakCut
		if !maps.Equal(client.requests, record.requests) {
			t.Errorf("%s: the clients made %v, recorded are %v", service, client.requests, record.requests)
		}
		if exact && (client.up != record.up || client.down != record.down) || client.down > record.down {
			t.Errorf("%s: the clients counted %d bytes up and %d down, recorded are %d and %d", service, client.up, client.down, record.up, record.down)
		}
		for series, want := range map[string]int64{
			fmt.Sprintf("espalier_bytes_total{direction=%q,service=%q}", "up", service):   record.up,
			fmt.Sprintf("espalier_bytes_total{direction=%q,service=%q}", "down", service): record.down,
		} {
			if got := s.p.metric(series); got != float64(want) {
				t.Errorf("%s is %v, recorded are %d", series, got, want)
			}
		}
		for action, want := range record.requests {
			series := fmt.Sprintf("espalier_requests_total{action=%q,service=%q}", action, service)
			if got := s.p.metric(series); got != float64(want) {
				t.Errorf("%s is %v, recorded are %d", series, got, want)
			}
		}
	}
	if len(recorded.services) != len(s.services) {
		t.Errorf("records of %d services, the clients used %d", len(recorded.services), len(s.services))
	}
}
