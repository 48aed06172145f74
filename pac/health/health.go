// Package health watches whether the proxies that the PAC script names are well,
// so that the script can name those last that are not.
package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// interval is how often proxies are probed, and recheck how soon again while
	// an answer contradicts what is held.
	interval = 10 * time.Second
	recheck  = time.Second
	// confirmations are the answers in a row that it takes to change one's mind.
	confirmations = 3
	askTimeout    = 3 * time.Second
	// atOnce bounds the probes at a time.
	atOnce = 32
)

// A Prober asks proxies every ten seconds how they are (OPTIONS *, which is about
// the proxy itself: RFC 9110, section 9.3.7). One that accepts no connection, closes
// it without an answer, as a load balancer without servers does, says nothing for
// three seconds or answers 503, as Espalier does while it is overloaded, is not
// well; any other answer will do, since the proxies may be of any make. What is held of one changes after three answers in a row that
// contradict it, asked for a second apart. It is safe for concurrent use.
type Prober struct {
	ask  func(ctx context.Context, proxy string) error
	wake chan struct{}

	mu      sync.RWMutex
	peers   map[string]*peer
	changed time.Time
}

type peer struct {
	down     bool
	since    time.Time
	contrary int // answers in a row
	err      error
}

// New returns a Prober that watches nothing yet.
func New() *Prober {
	return &Prober{ask: ask, wake: make(chan struct{}, 1), peers: map[string]*peer{}}
}

var (
	errSilent     = errors.New("takes connections, but says nothing")
	errCloses     = errors.New("accepts connections and closes them without an answer")
	errOverloaded = errors.New("says that it is overloaded (503)")
)

// ask returns why a proxy is not well.
func ask(ctx context.Context, proxy string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", proxy)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	_, _ = fmt.Fprintf(c, "OPTIONS * HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", proxy)
	answer := bufio.NewReader(io.LimitReader(c, maxAnswer))
	if _, err := answer.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
		return errSilent
	} else if err != nil {
		return errCloses
	}
	resp, err := http.ReadResponse(answer, nil)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSilent
	case err == nil && resp.StatusCode == http.StatusServiceUnavailable:
		return errOverloaded
	}
	return nil
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 10

// Watch replaces the proxies that are watched, each host:port. A new one counts
// as up until it is known better.
func (p *Prober) Watch(proxies []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.peers
	p.peers = map[string]*peer{}
	for _, proxy := range proxies {
		if p.peers[proxy] = before[proxy]; p.peers[proxy] == nil {
			p.peers[proxy] = &peer{since: time.Now()}
		}
	}
	p.Hurry()
}

// Hurry lets Run probe now: something is about to be different.
func (p *Prober) Hurry() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Up reports whether a proxy is well, as far as that is known: one that is not
// watched is.
func (p *Prober) Up(proxy string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	peer := p.peers[proxy]
	return peer == nil || !peer.down
}

// Changed is when Up last changed its answer; zero where it never has.
func (p *Prober) Changed() time.Time {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.changed
}

// Run probes until ctx ends.
func (p *Prober) Run(ctx context.Context) {
	for {
		pause := interval
		if p.probe(ctx) {
			pause = recheck
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-p.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// probe asks each proxy once and reports whether any answer was contrary to
// what is held since.
func (p *Prober) probe(ctx context.Context) (doubt bool) {
	p.mu.RLock()
	proxies := slices.Collect(maps.Keys(p.peers))
	p.mu.RUnlock()
	var wg sync.WaitGroup
	room := make(chan struct{}, atOnce)
	for _, proxy := range proxies {
		room <- struct{}{}
		wg.Go(func() {
			err := p.ask(ctx, proxy)
			<-room
			if ctx.Err() == nil {
				p.note(proxy, err)
			}
		})
	}
	wg.Wait()
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, peer := range p.peers {
		doubt = doubt || peer.contrary > 0
	}
	return doubt
}

// note takes an answer in.
func (p *Prober) note(proxy string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	peer := p.peers[proxy]
	if peer == nil { // no longer watched
		return
	}
	peer.err = err
	if peer.down == (err != nil) {
		peer.contrary = 0
		return
	}
	if peer.contrary++; peer.contrary < confirmations {
		return
	}
	now := time.Now()
	peer.down, peer.since, peer.contrary = err != nil, now, 0
	p.changed = now
}

// Status says how it stands with a proxy.
type Status struct {
	Proxy string    `json:"proxy"` // host:port
	Up    bool      `json:"up"`
	Since time.Time `json:"since"`
	// Error is what the last probe met; empty where all was well.
	Error string `json:"error,omitempty"`
}

// Status returns what is watched, sorted by name.
func (p *Prober) Status() []Status {
	p.mu.RLock()
	defer p.mu.RUnlock()
	list := []Status{}
	for _, name := range slices.Sorted(maps.Keys(p.peers)) {
		peer := p.peers[name]
		st := Status{Proxy: name, Up: !peer.down, Since: peer.since}
		if peer.err != nil {
			st.Error = peer.err.Error()
		}
		list = append(list, st)
	}
	return list
}
