package egress

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// ErrLoop says that a parent leads back to this proxy.
var ErrLoop = errors.New("it leads back to this proxy; let egress.parent name another proxy")

const (
	pseudonym = "espalier" // in Via
	// questionZone is where the names of questions lie. No name in it exists (RFC
	// 6761, section 6.4), so that a question that does not come back ends there.
	questionZone = "." + pseudonym + ".invalid"
	// watchInterval is how often parents are asked whether they lead back, and
	// loopTTL how long one that does is not used: a little longer, so that the next
	// question finds it unused.
	watchInterval = time.Minute
	loopTTL       = 90 * time.Second
	// watchConnections is after how many connections to a parent it is asked before
	// the minute is over: a request in a loop makes a thousand in a second.
	watchConnections = 256
)

// nonce tells this process from all others.
var nonce = strings.ToLower(rand.Text()[:16])

// dialers counts the Dialers of this process, whose parents have different tokens.
var dialers atomic.Int64

// Via returns what a request that goes to its destination says in Via (RFC 9110,
// section 7.6.3).
func (d *Dialer) Via() string { return "1.1 " + pseudonym + "-" + nonce }

// Via is Dialer.Via of a request that goes to the parent.
func (p *Parent) Via() string { return "1.1 " + pseudonym + "-" + p.token }

// OwnQuestion reports whether a request for host is a question of Watch that has
// come back. The parent that it was put to is not used for a while.
func (d *Dialer) OwnQuestion(host string) bool {
	return strings.HasSuffix(host, questionZone) && d.IsLoop(host)
}

// IsLoop reports whether the value of a request's Via says that it has been here. The
// parent that it went to, if any, is not used for a while.
func (d *Dialer) IsLoop(via string) bool {
	_, rest, ok := strings.Cut(via, nonce)
	if !ok {
		return false
	}
	if end := strings.IndexFunc(rest, func(r rune) bool { return r != '-' && (r < '0' || r > '9') }); end >= 0 {
		rest = rest[:end]
	}
	for _, p := range d.parents {
		if p.token == nonce+rest {
			p.loopsUntil(time.Now().Add(loopTTL))
		}
	}
	return true
}

// watchNow lets Watch ask now.
func (d *Dialer) watchNow() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

type viaKey struct{}

// WithVia returns a context in which Dial tells a parent the values of Via that the
// client's request has, besides its own, so that loops of several proxies are found.
func WithVia(ctx context.Context, via []string) context.Context {
	if len(via) == 0 {
		return ctx
	}
	return context.WithValue(ctx, viaKey{}, via)
}

// viaFields returns the header fields for a request to p.
func (p *Parent) viaFields(ctx context.Context) string {
	var b strings.Builder
	received, _ := ctx.Value(viaKey{}).([]string)
	for _, v := range append(slices.Clone(received), p.Via()) {
		if !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			b.WriteString("Via: " + v + "\r\n")
		}
	}
	return b.String()
}

// loopsUntil notes that p leads back to this proxy, or with the zero Time that it
// does not.
func (p *Parent) loopsUntil(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loop = t
}

// loops reports whether p is known to lead back to this proxy.
func (p *Parent) loops() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.loop)
}

// Watch asks the parents whether they lead back to this proxy, until ctx ends: now,
// every minute, and when one is well again or has many connections. It is for requests
// that carry no Via: a question is one too, for a name that only OwnQuestion knows.
// changed is called when what is known of a parent, host:port, has changed.
func (d *Dialer) Watch(ctx context.Context, changed func(parent string, loops bool)) {
	if len(d.parents) == 0 {
		return
	}
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	looped := make([]bool, len(d.parents))
	for {
		for i, p := range d.parents {
			p.question(ctx)
			if loops := p.loops(); loops != looped[i] {
				looped[i] = loops
				changed(p.String(), loops)
			}
		}
		select {
		case <-ticker.C:
		case <-d.wake:
		case <-ctx.Done():
			return
		}
	}
}

// question asks p for a name that does not exist. If p answers and the question has
// not come back, p does not lead here.
func (p *Parent) question(ctx context.Context) {
	began := time.Now()
	p.connections.Store(0)
	host := p.token + questionZone
	if p.exchange(ctx, fmt.Sprintf("GET http://%s/ HTTP/1.1\r\nHost: %s\r\nCache-Control: no-store\r\n", host, host)) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loop.Before(began.Add(loopTTL)) { // it was not noted meanwhile
		p.loop = time.Time{}
	}
}
