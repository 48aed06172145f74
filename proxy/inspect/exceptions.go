package inspect

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"espalier/policy"
)

// What an administrator has said of an exception.
const (
	Automatic = "automatic" // nothing yet
	Accepted  = "accepted"  // tunnelled for good, for everybody
	Refused   = "refused"   // never to be exempt
)

// An Exception is a host that some clients reach without interception, such as an app
// that knows its own server's certificate, or a host pattern that an administrator has
// decided about.
type Exception struct {
	// Host is that of the CONNECT, or an administrator's pattern.
	Host string `json:"host"`
	// Name is the name in TLS, if it is not Host. A Host learnt is exempt with it alone.
	Name  string `json:"name,omitempty"`
	State string `json:"state"`
	// Everybody is set if the host is tunnelled for all clients, as an administrator has
	// decided.
	Everybody bool `json:"everybody"`
	// Proposed is set if so many clients are exempt that an administrator may want to
	// accept the host for everybody.
	Proposed bool `json:"proposed,omitempty"`
	// Clients are those that it is tunnelled for, for what they did themselves.
	Clients []ExemptClient `json:"clients"`
	// Reason is what the last client did.
	Reason string `json:"reason"`
	// Refusals is how often those clients did it.
	Refusals int       `json:"refusals"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	// Until is when the last exemption ends; zero if none does, or there is none.
	Until time.Time `json:"until,omitzero"`
}

// An ExemptClient is one that a host is tunnelled for until a time, with the evidence.
type ExemptClient struct {
	Client   netip.Addr `json:"client"`
	Until    time.Time  `json:"until"`
	Evidence Ground     `json:"evidence,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Refusals int        `json:"refusals,omitempty"`
	First    time.Time  `json:"first,omitzero"`
	Last     time.Time  `json:"last,omitzero"`
	// WithoutCA is set if the client has not accepted the CA's certificate elsewhere.
	WithoutCA bool `json:"without_ca,omitempty"`
}

const (
	// clientsToPropose is how many exempt clients make a host one to accept for everybody.
	clientsToPropose = 3
	maxReason        = 200 // bytes
)

// Exceptions learns which clients cannot be intercepted at which hosts, from how they
// take the certificates, and knows what administrators have said about it. What one
// client does is never evidence about another. It is safe for concurrent use. Nil has no
// exceptions, and learns none.
type Exceptions struct {
	// Now is the clock; nil: time.Now. It must be set before use.
	Now func() time.Time

	lasting   atomic.Int64 // ns
	strangers atomic.Bool  // clients without the CA are exempt, too
	changed   chan struct{}
	learned   *learned
	asking    asking

	acting sync.Mutex // of those who change acts
	acts   atomic.Pointer[acts]
}

// newExceptions returns what knows nothing yet.
func newExceptions() *Exceptions {
	e := &Exceptions{changed: make(chan struct{}, 1), learned: newLearned()}
	e.acts.Store(&acts{})
	return e
}

func (e *Exceptions) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

// SetDuration sets for how long exemptions that begin from now on last; 0 means
// that none begins.
func (e *Exceptions) SetDuration(d time.Duration) { e.lasting.Store(int64(d)) }

// TunnelWithoutCA sets whether a client that has accepted the CA's certificate nowhere is
// exempt from interception at hosts that it refuses it for, as others are.
func (e *Exceptions) TunnelWithoutCA(tunnel bool) { e.strangers.Store(tunnel) }

// Accepted reports whether an administrator has said that host is never intercepted. It
// does not allocate.
func (e *Exceptions) Accepted(host string) bool {
	return e != nil && e.acts.Load().state(host) == Accepted
}

// Exempt returns the rule by which client is exempt at a host with a name in TLS, for what
// it did before; "" if it is not. It does not allocate.
func (e *Exceptions) Exempt(host, name string, client netip.Addr) (rule string) {
	if e == nil {
		return ""
	}
	s := e.learned.shard(client)
	s.mu.RLock()
	g, ok := s.grants[e.learned.key(client, Pair{host, name})]
	s.mu.RUnlock()
	switch {
	case !ok || e.now().UnixNano() >= g.until || e.decided(Pair{host, name}):
		return ""
	case g.ground == ByCertificate:
		return policy.RuleClientCertificate
	case !g.stranger:
		return policy.RuleException
	case e.strangers.Load():
		return policy.RuleWithoutCA
	}
	return ""
}

// decided reports whether an administrator has said something about a pair.
func (e *Exceptions) decided(pair Pair) bool {
	a := *e.acts.Load()
	return len(a) > 0 && (a.state(pair.Host) != "" || a.state(pair.Name) != "")
}

// WithoutCA reports whether client seems not to trust the CA: it has refused its
// certificate at two hosts, and not accepted one since.
func (e *Exceptions) WithoutCA(client netip.Addr) bool {
	if e == nil || !e.learned.strange.Load() {
		return false
	}
	s := e.learned.shard(client)
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := s.clients[client]
	return c != nil && c.strange && e.now().UnixNano()-c.strangeAt < int64(trustLasts)
}

// Succeeded notes that client has accepted a certificate for pair, and has asked for
// something on the connection. Ended must follow. It does not allocate if that is no news.
func (e *Exceptions) Succeeded(pair Pair, client netip.Addr) {
	if e != nil && e.learned.opened(client, pair, e.now()) {
		e.save()
	}
}

// Ended notes that the connection of Succeeded has ended.
func (e *Exceptions) Ended(pair Pair, client netip.Addr) {
	if e != nil {
		e.learned.closed(client, pair, e.now())
	}
}

// A Verdict is what came of what a client did.
type Verdict struct {
	// Exempt is set if the client is exempt from now on, and was not before.
	Exempt bool
	Until  time.Time
	// WithoutCA is set if the client has not accepted the CA's certificate elsewhere.
	WithoutCA bool
}

// Refused notes that client has not accepted a certificate for pair, and how it has
// said so, ByAlert or ByClosing. An alert is evidence. A client that closes may have had
// another reason: it must do so on two occasions, and not succeed at the pair beside.
func (e *Exceptions) Refused(pair Pair, client netip.Addr, ground Ground, reason string) (v Verdict) {
	if e == nil || e.lasting.Load() <= 0 || e.decided(pair) {
		return v
	}
	now := e.now()
	e.learned.with(client, pair, now, func(c *clientRecord, x *encounter) {
		if v.WithoutCA = !c.trustsBeside(pair, now); v.WithoutCA {
			if ground == ByAlert {
				c.refuse(pair.Host, now)
				if c.strange {
					e.learned.strange.Store(true)
				}
			}
			if !e.strangers.Load() {
				return
			}
		}
		if ground == ByClosing && !x.again(now) {
			return
		}
		v.Exempt, v.Until = e.exempt(x, ground, reason, v.WithoutCA, now), x.until
	})
	return v
}

// Presented notes that client has presented a certificate of its own for pair, which only
// the destination can use.
func (e *Exceptions) Presented(pair Pair, client netip.Addr) (v Verdict) {
	if e == nil || e.lasting.Load() <= 0 || e.decided(pair) {
		return v
	}
	now := e.now()
	e.learned.with(client, pair, now, func(_ *clientRecord, x *encounter) {
		const reason = "the client has a certificate that the destination asks for"
		v.Exempt, v.Until = e.exempt(x, ByCertificate, reason, false, now), x.until
	})
	return v
}

// exempt lets the client of x through, and reports whether it was not let before.
func (e *Exceptions) exempt(x *encounter, ground Ground, reason string, stranger bool, now time.Time) bool {
	news := !now.Before(x.until)
	if news {
		x.exemption = exemption{first: now}
		if ground == ByClosing {
			x.first, x.refusals = time.Unix(0, x.doubt), 1
		}
	}
	x.ground, x.reason, x.stranger = ground, reason[:min(len(reason), maxReason)], stranger
	x.refusals++
	x.last, x.until = now, now.Add(time.Duration(e.lasting.Load()))
	e.save()
	return news
}

// save lets the file be written.
func (e *Exceptions) save() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// List returns every host that some client is exempt at, and every pattern that an
// administrator has said something about: those to be accepted for everybody first, then
// by the time of the last refusal, the latest first.
func (e *Exceptions) List() []Exception {
	list := []Exception{}
	if e == nil {
		return list
	}
	for pattern, x := range *e.acts.Load() {
		list = append(list, Exception{
			Host: pattern, State: x.state, Everybody: x.state == Accepted, Clients: []ExemptClient{},
			First: x.at, Last: x.at,
		})
	}
	for _, x := range e.learned.list(e.now(), e.strangers.Load()) {
		list = append(list, *x)
	}
	slices.SortFunc(list, func(a, b Exception) int {
		proposed := 0
		if a.Proposed != b.Proposed {
			proposed = 1
			if a.Proposed {
				proposed = -1
			}
		}
		return cmp.Or(proposed, b.Last.Compare(a.Last), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// Count returns how many hosts there are in each state.
func (e *Exceptions) Count() map[string]int {
	n := map[string]int{Automatic: 0, Accepted: 0, Refused: 0}
	for _, x := range e.List() {
		n[x.State]++
	}
	return n
}

// Set says of a host pattern, as policy.ParsePattern returns it, that it is tunnelled for
// good (Accepted) or never exempt (Refused), whether it was refused before or not.
func (e *Exceptions) Set(pattern, state string) {
	e.acting.Lock()
	next := e.acts.Load().with(pattern, act{state, e.now()})
	e.acts.Store(&next)
	e.acting.Unlock()
	e.learned.forget(pattern)
	e.save()
}

// Forget takes back what is known and was said of a host pattern, and reports whether
// anything was.
func (e *Exceptions) Forget(pattern string) bool {
	e.acting.Lock()
	before := *e.acts.Load()
	next := before.without(pattern)
	e.acts.Store(&next)
	e.acting.Unlock()
	known := e.learned.forget(pattern) || len(next) < len(before)
	if known {
		e.save()
	}
	return known
}

// restore takes over what List has returned before. What an older version has learnt for
// everybody is dropped.
func (e *Exceptions) restore(list []Exception) {
	said := acts{}
	for _, x := range list {
		if x.State != Automatic {
			said[x.Host] = act{x.State, x.Last}
			continue
		}
		pair := Pair{x.Host, cmp.Or(x.Name, x.Host)}
		for _, c := range x.Clients {
			e.learned.with(c.Client, pair, x.Last, func(_ *clientRecord, n *encounter) {
				n.exemption = exemption{
					ground: cmp.Or(c.Evidence, ByAlert), reason: cmp.Or(c.Reason, x.Reason), refusals: max(c.Refusals, 1),
					first: c.First, last: c.Last, until: c.Until, stranger: c.WithoutCA,
				}
				if n.last.IsZero() {
					n.first, n.last = x.First, x.Last
				}
			})
		}
	}
	e.acts.Store(&said)
}
