package inspect

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// What an administrator has said of an exception.
const (
	Automatic = "automatic" // nothing yet
	Accepted  = "accepted"  // tunnelled for good, for everybody
	Refused   = "refused"   // never to be exempt
)

// An Exception is a host whose clients do not take the CA's certificates, such
// as an app that knows its own server's.
type Exception struct {
	Host  string `json:"host"`
	State string `json:"state"`
	// Everybody is set where the host is tunnelled for all clients.
	Everybody bool `json:"everybody"`
	// Clients are those that it is tunnelled for by themselves.
	Clients []ExemptClient `json:"clients"`
	// Reason is how the last client refused the certificate.
	Reason string `json:"reason"`
	// Refusals is how often a certificate for the host was refused.
	Refusals int       `json:"refusals"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	// Until is when the last exemption ends; zero where none does, or there is
	// none.
	Until time.Time `json:"until,omitzero"`
}

// An ExemptClient is one that a host is tunnelled for until a time.
type ExemptClient struct {
	Client netip.Addr `json:"client"`
	Until  time.Time  `json:"until"`
}

const (
	// A host is exempt after so many refusals by one client within a time.
	refusalsNeeded = 2
	refusalWindow  = 10 * time.Minute
	// A host is exempt for everybody after so many clients that take the CA's
	// certificates elsewhere have refused one for it.
	clientsNeeded = 3

	// Names are the clients' choice, and some clients are hostile: how many are
	// kept of each is bounded, and what was used last stays.
	maxHosts         = 1024 // without those that an administrator has named
	maxClients       = 4096
	maxHostsOfClient = 64
	maxClientsOfHost = 64
	maxReason        = 200 // bytes
)

// Exceptions learns which hosts cannot be intercepted, from how clients take the
// certificates, and knows what an administrator has said about it. It is safe
// for concurrent use. Nil has no exceptions, and learns none.
type Exceptions struct {
	now     func() time.Time
	changed chan struct{} // has room for one: what is to be saved

	mu      sync.RWMutex
	lasting time.Duration
	hosts   map[string]*hostState
	clients map[netip.Addr]*clientState
}

type hostState struct {
	state     string
	everybody time.Time                // until when it is exempt for all
	clients   map[netip.Addr]time.Time // until when it is for one
	reason    string
	refusals  int
	first     time.Time
	last      time.Time
}

// clientState is what is known of a client; it is not kept over a restart.
type clientState struct {
	trusts bool // it has taken a certificate of the CA
	seen   time.Time
	hosts  map[string]encounter
}

// An encounter is how a client has taken the certificates for a host.
type encounter struct {
	succeeded time.Time // last
	refused   time.Time // when counting began
	refusals  int
}

func (x encounter) last() time.Time {
	if x.succeeded.After(x.refused) {
		return x.succeeded
	}
	return x.refused
}

// newExceptions returns what knows nothing yet.
func newExceptions() *Exceptions {
	return &Exceptions{
		now: time.Now, changed: make(chan struct{}, 1),
		hosts: map[string]*hostState{}, clients: map[netip.Addr]*clientState{},
	}
}

// SetDuration sets for how long exemptions that begin from now on last; 0 means
// that none begins.
func (e *Exceptions) SetDuration(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lasting = d
}

// Exempt reports whether host is to be tunnelled for client. It does not allocate.
func (e *Exceptions) Exempt(host string, client netip.Addr) bool {
	if e == nil {
		return false
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	h := e.hosts[host]
	if h == nil {
		return false
	}
	switch h.state {
	case Accepted:
		return true
	case Refused:
		return false
	}
	now := e.now()
	return now.Before(h.everybody) || now.Before(h.clients[client])
}

// Succeeded notes that client has taken a certificate for host.
func (e *Exceptions) Succeeded(host string, client netip.Addr) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.client(client)
	c.trusts = true
	x := c.hosts[host]
	x.succeeded = c.seen
	c.note(host, x)
}

// A Verdict is what came of a refusal.
type Verdict struct {
	// Exempt is set where the host is tunnelled for the client from now on, and
	// was not before. Everybody says that it is for all.
	Exempt, Everybody bool
	Until             time.Time
}

// Refused notes that client has not taken a certificate for host, and how it has
// said so. Unless sure it may have ended the connection for another reason; that
// does not count where it has taken one for the host not long ago.
func (e *Exceptions) Refused(host string, client netip.Addr, reason string, sure bool) Verdict {
	if e == nil {
		return Verdict{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lasting <= 0 {
		return Verdict{}
	}
	c := e.client(client)
	now := c.seen
	x := c.hosts[host]
	if !sure && now.Sub(x.succeeded) < refusalWindow {
		return Verdict{}
	}
	if now.Sub(x.refused) > refusalWindow {
		x.refused, x.refusals = now, 0
	}
	x.refusals++
	c.note(host, x)
	if x.refusals < refusalsNeeded {
		return Verdict{}
	}
	h := e.host(host, x.refused)
	h.refusals++
	if x.refusals == refusalsNeeded { // those before count too
		h.refusals += refusalsNeeded - 1
	}
	h.reason, h.last = reason[:min(len(reason), maxReason)], now
	v := Verdict{Until: now.Add(e.lasting)}
	if h.state == Automatic && !now.Before(h.clients[client]) {
		v.Exempt = true
		if len(h.clients) >= maxClientsOfHost {
			dropOldest(h.clients, func(until time.Time) time.Time { return until })
		}
		h.clients[client] = v.Until
		if !now.Before(h.everybody) && e.trusting(h, now) >= clientsNeeded {
			h.everybody, v.Everybody = v.Until, true
		}
	}
	e.save()
	return v
}

// trusting counts the clients that host is exempt for though they trust the CA:
// a machine without the CA refuses every certificate, and says nothing about a
// host.
func (e *Exceptions) trusting(h *hostState, now time.Time) int {
	n := 0
	for addr, until := range h.clients {
		if c := e.clients[addr]; c != nil && c.trusts && now.Before(until) {
			n++
		}
	}
	return n
}

// client returns what is known of a client, which is seen now.
func (e *Exceptions) client(addr netip.Addr) *clientState {
	c := e.clients[addr]
	if c == nil {
		if len(e.clients) >= maxClients {
			dropOldest(e.clients, func(c *clientState) time.Time { return c.seen })
		}
		c = &clientState{}
		e.clients[addr] = c
	}
	c.seen = e.now()
	return c
}

// note keeps how it went with a host.
func (c *clientState) note(host string, x encounter) {
	if c.hosts == nil {
		c.hosts = map[string]encounter{}
	}
	if _, known := c.hosts[host]; !known && len(c.hosts) >= maxHostsOfClient {
		dropOldest(c.hosts, encounter.last)
	}
	c.hosts[host] = x
}

// host returns what is known of a host.
func (e *Exceptions) host(name string, now time.Time) *hostState {
	h := e.hosts[name]
	if h != nil {
		return h
	}
	automatic, oldest := 0, ""
	for name, h := range e.hosts {
		if h.state != Automatic {
			continue
		}
		automatic++
		if oldest == "" || h.last.Before(e.hosts[oldest].last) {
			oldest = name
		}
	}
	if automatic >= maxHosts {
		delete(e.hosts, oldest)
	}
	h = &hostState{state: Automatic, clients: map[netip.Addr]time.Time{}, first: now, last: now}
	e.hosts[name] = h
	return h
}

// save lets the file be written.
func (e *Exceptions) save() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// dropOldest makes room for one more.
func dropOldest[K comparable, V any](m map[K]V, age func(V) time.Time) {
	var oldest K
	var at time.Time
	for k, v := range m {
		if t := age(v); at.IsZero() || t.Before(at) {
			oldest, at = k, t
		}
	}
	delete(m, oldest)
}

// List returns every host that is exempt, or that an administrator has said
// something about, the last refused first.
func (e *Exceptions) List() []Exception {
	if e == nil {
		return []Exception{}
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.list()
}

func (e *Exceptions) list() []Exception {
	now := e.now()
	list := []Exception{}
	for name, h := range e.hosts {
		x := Exception{
			Host: name, State: h.state, Reason: h.reason, Refusals: h.refusals, First: h.first, Last: h.last,
			Everybody: h.state == Accepted, Clients: []ExemptClient{},
		}
		if h.state == Automatic {
			if now.Before(h.everybody) {
				x.Everybody, x.Until = true, h.everybody
			}
			for client, until := range h.clients {
				if now.Before(until) {
					x.Clients = append(x.Clients, ExemptClient{client, until})
					if until.After(x.Until) {
						x.Until = until
					}
				}
			}
			if !x.Everybody && len(x.Clients) == 0 {
				continue // all is over
			}
			slices.SortFunc(x.Clients, func(a, b ExemptClient) int { return a.Client.Compare(b.Client) })
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b Exception) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Host, b.Host))
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

// Set says of a normalised host that it is tunnelled for good (Accepted) or is
// never to be exempt (Refused), whether it was refused before or not.
func (e *Exceptions) Set(host, state string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.host(host, e.now())
	h.state, h.everybody = state, time.Time{}
	clear(h.clients)
	e.save()
}

// Forget takes back what is known and was said of a host, and reports whether
// anything was.
func (e *Exceptions) Forget(host string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.hosts[host]
	delete(e.hosts, host)
	for _, c := range e.clients {
		delete(c.hosts, host)
	}
	if ok {
		e.save()
	}
	return ok
}

// restore takes over what List has returned before.
func (e *Exceptions) restore(list []Exception) {
	for _, x := range list {
		h := &hostState{state: x.State, clients: map[netip.Addr]time.Time{}, reason: x.Reason, refusals: x.Refusals, first: x.First, last: x.Last}
		if x.State == Automatic {
			for _, c := range x.Clients[:min(len(x.Clients), maxClientsOfHost)] {
				h.clients[c.Client] = c.Until
			}
			if x.Everybody {
				h.everybody = x.Until
			}
		}
		e.hosts[x.Host] = h
	}
}
