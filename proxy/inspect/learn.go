package inspect

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// What clients do is evidence about themselves alone.
const (
	// secondOccasion is how long after the first a client must close again without a
	// request to be exempt, and doubtLasts how long the first one counts.
	secondOccasion = 30 * time.Second
	doubtLasts     = 24 * time.Hour
	// successLasts is how long after a success at a host a close says nothing. Browsers
	// open several connections, and close those that they turn out not to need.
	successLasts = 10 * time.Minute
	// trustLasts is how long a client that has accepted a certificate counts as one that
	// trusts the CA. It is renewed after trustRenewed.
	trustLasts   = 24 * time.Hour
	trustRenewed = time.Hour
)

// Names are the clients' choice, and some clients are hostile: each has room for its own
// pairs alone, and a network of IPv6, in which a device can have any address, for a part
// of a shard.
const (
	shards            = 64
	maxOfShard        = 2048 // clients
	maxOfNetwork      = 1024 // clients in a network of IPv6
	maxPairs          = 128  // of a client
	maxPairsScarce    = 8    // of a client, beyond maxPairsInTotal
	maxPairsInTotal   = 1 << 20
	lookedAtForOldest = 8
)

// A Pair is what a client connects to: the host of its CONNECT, and the name in TLS
// (SNI), which is the host again if TLS has none. Both are normalised.
type Pair struct{ Host, Name string }

// learned is what is known of clients. It is sharded by network.
type learned struct {
	seed   maphash.Seed
	salt   uint64
	shards [shards]shard
	pairs  atomic.Int64
	// strange is set once any client was one without the CA.
	strange atomic.Bool
}

// A shard has the encounters by the hash of client and pair, so that one look-up finds
// them, and of those that are exempt what Exempt needs.
type shard struct {
	mu         sync.RWMutex
	encounters map[uint64]*encounter
	grants     map[uint64]grant
	clients    map[netip.Addr]*clientRecord
	networks   map[netip.Addr]int // clients in each of IPv6
}

// A clientRecord is what is known of a client. It is read and written with its shard
// locked.
type clientRecord struct {
	seen       int64    // Unix time in ns, as all of these; about
	trust      [2]trust // the last of different hosts
	encounters []*encounter

	// stranger is the host at which the client has refused the CA since it last accepted
	// it; strange is set if it has at another, too.
	stranger  string
	strange   bool
	strangeAt int64
}

// trust says that a client has accepted a certificate for a host; "" is none.
type trust struct {
	host string
	at   int64
}

// An encounter is how a client has taken the certificates for a Pair. What is atomic is
// written with its shard locked for reading.
type encounter struct {
	pair      Pair
	key       uint64
	open      atomic.Int32 // intercepted connections with a request
	succeeded atomic.Int64
	// settled is until when a success is no news: nothing in the encounter or its client
	// would change but open and succeeded.
	settled   atomic.Int64
	doubt     int64 // the first occasion of closing; 0: none
	exemption       // until is zero if there is none
}

// An exemption lets a client through.
type exemption struct {
	ground      Ground
	reason      string
	refusals    int
	first, last time.Time
	until       time.Time
	stranger    bool // the client has not shown that it trusts the CA
}

// A grant is an exemption for who asks.
type grant struct {
	until    int64
	ground   Ground
	stranger bool
}

// A Ground is why a client is exempt.
type Ground string

const (
	ByAlert       Ground = "alert"       // it refused the certificate by a TLS alert
	ByClosing     Ground = "closed"      // it closed on two occasions
	ByCertificate Ground = "certificate" // it has presented a client certificate
)

func newLearned() *learned {
	l := &learned{seed: maphash.MakeSeed(), salt: rand.Uint64()}
	for i := range l.shards {
		l.shards[i] = shard{
			encounters: map[uint64]*encounter{}, grants: map[uint64]grant{},
			clients: map[netip.Addr]*clientRecord{}, networks: map[netip.Addr]int{},
		}
	}
	return l
}

// network is what addr counts as for the bounds: a network of 64 bits for IPv6.
func network(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return addr
	}
	p, _ := addr.Prefix(64) // it has as many bits
	return p.Addr()
}

// shard returns that of the client's network.
func (l *learned) shard(addr netip.Addr) *shard {
	b := addr.As16()
	n := binary.BigEndian.Uint64(b[:8])
	if addr.Is4() {
		n = binary.BigEndian.Uint64(b[8:])
	}
	return &l.shards[(n^l.salt)*0x9e3779b97f4a7c15>>32%shards]
}

// key is what a client and a pair are found by.
func (l *learned) key(addr netip.Addr, pair Pair) uint64 {
	return maphash.Comparable(l.seed, struct {
		addr netip.Addr
		pair Pair
	}{addr, pair})
}

// with calls f with what is known of a client and a pair, of which it makes what is not
// there, with the shard locked.
func (l *learned) with(addr netip.Addr, pair Pair, now time.Time, f func(*clientRecord, *encounter)) {
	s, key := l.shard(addr), l.key(addr, pair)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[addr]
	if c == nil {
		l.makeRoom(s, addr)
		c = &clientRecord{}
		s.clients[addr] = c
		if !addr.Is4() {
			s.networks[network(addr)]++
		}
	}
	c.seen = now.UnixNano()
	x := s.encounters[key]
	if x == nil {
		l.makeRoomFor(s, c, now)
		x = &encounter{pair: pair, key: key}
		s.encounters[key] = x
		c.encounters = append(c.encounters, x)
		l.pairs.Add(1)
	}
	f(c, x)
	s.grant(x)
}

// grant brings what Exempt sees up to date with x.
func (s *shard) grant(x *encounter) {
	if x.until.IsZero() {
		delete(s.grants, x.key)
	} else {
		s.grants[x.key] = grant{x.until.UnixNano(), x.ground, x.stranger}
	}
}

// drop forgets an encounter, which its client does not have any more.
func (l *learned) drop(s *shard, x *encounter) {
	delete(s.encounters, x.key)
	delete(s.grants, x.key)
	l.pairs.Add(-1)
}

// makeRoom makes room for a client in s, in place of another: the one that was seen
// longest ago among a few, of its own network if that has many.
func (l *learned) makeRoom(s *shard, addr netip.Addr) {
	own := network(addr)
	crowded := s.networks[own] >= maxOfNetwork
	if !crowded && len(s.clients) < maxOfShard {
		return
	}
	var oldest netip.Addr
	looked := 0
	for other, c := range s.clients { // in random order
		if crowded && network(other) != own {
			continue
		}
		if looked == 0 || c.seen < s.clients[oldest].seen {
			oldest = other
		}
		if looked++; looked == lookedAtForOldest {
			break
		}
	}
	for _, x := range s.clients[oldest].encounters {
		l.drop(s, x)
	}
	delete(s.clients, oldest)
	if n := network(oldest); s.networks[n] > 1 {
		s.networks[n]--
	} else {
		delete(s.networks, n)
	}
}

// makeRoomFor makes room for an encounter of c: in place of those that say nothing any
// more, or else of the one that was used longest ago, an exemption only if there are no
// others.
func (l *learned) makeRoomFor(s *shard, c *clientRecord, now time.Time) {
	limit := maxPairs
	if l.pairs.Load() > maxPairsInTotal {
		limit = maxPairsScarce
	}
	if len(c.encounters) < limit {
		return
	}
	c.encounters = slices.DeleteFunc(c.encounters, func(x *encounter) bool {
		if x.over(now) {
			l.drop(s, x)
			return true
		}
		return false
	})
	for len(c.encounters) >= limit {
		least := slices.MinFunc(c.encounters, func(a, b *encounter) int { return a.compareWorth(b, now) })
		c.encounters = slices.DeleteFunc(c.encounters, func(x *encounter) bool { return x == least })
		l.drop(s, least)
	}
}

// over reports whether x says nothing any more.
func (x *encounter) over(now time.Time) bool {
	return !now.Before(x.until) && !x.doubted(now) && !x.succeededBy(now)
}

// compareWorth compares what is worth keeping.
func (x *encounter) compareWorth(other *encounter, now time.Time) int {
	kind, at := x.worth(now)
	otherKind, otherAt := other.worth(now)
	return cmp.Or(cmp.Compare(kind, otherKind), cmp.Compare(at, otherAt))
}

// worth is how much x is worth keeping, and its time among equals.
func (x *encounter) worth(now time.Time) (kind, at int64) {
	switch {
	case now.Before(x.until):
		return 2, x.last.UnixNano()
	case x.open.Load() > 0:
		return 1, x.succeeded.Load()
	}
	return 0, max(x.succeeded.Load(), x.doubt)
}

func (x *encounter) doubted(now time.Time) bool {
	return x.doubt != 0 && now.UnixNano()-x.doubt < int64(doubtLasts)
}

// succeededBy reports whether the client has succeeded not long ago, or succeeds now.
func (x *encounter) succeededBy(now time.Time) bool {
	return x.open.Load() > 0 || now.UnixNano()-x.succeeded.Load() < int64(successLasts)
}

// opened notes that the client has asked for something on a connection for pair, and
// reports whether that has ended an exemption. It writes to the shard only if it is news.
func (l *learned) opened(addr netip.Addr, pair Pair, now time.Time) (cleared bool) {
	s := l.shard(addr)
	s.mu.RLock()
	x := s.encounters[l.key(addr, pair)]
	settled := x != nil && now.UnixNano() < x.settled.Load()
	if settled {
		x.open.Add(1)
		x.succeeded.Store(now.UnixNano())
	}
	s.mu.RUnlock()
	if settled {
		return false
	}
	l.with(addr, pair, now, func(c *clientRecord, x *encounter) {
		c.accept(pair.Name, now)
		x.open.Add(1)
		x.succeeded.Store(now.UnixNano())
		x.settled.Store(now.Add(trustRenewed).UnixNano())
		x.doubt = 0
		if x.ground == ByClosing {
			cleared = now.Before(x.until)
			x.exemption = exemption{}
		}
	})
	return cleared
}

// closed notes that a connection of opened has ended.
func (l *learned) closed(addr netip.Addr, pair Pair, now time.Time) {
	s := l.shard(addr)
	s.mu.RLock()
	defer s.mu.RUnlock()
	x := s.encounters[l.key(addr, pair)]
	if x == nil { // forgotten meanwhile
		return
	}
	x.succeeded.Store(now.UnixNano())
	if x.open.Add(-1) < 0 { // as above
		x.open.Store(0)
	}
}

// accept notes that the client has accepted a certificate for host.
func (c *clientRecord) accept(host string, now time.Time) {
	c.stranger, c.strange = "", false
	if c.trust[0].host != host {
		c.trust[1] = c.trust[0]
	}
	c.trust[0] = trust{host, now.UnixNano()}
}

// trustsBeside reports whether the client has accepted a certificate for another host.
func (c *clientRecord) trustsBeside(pair Pair, now time.Time) bool {
	return slices.ContainsFunc(c.trust[:], func(t trust) bool {
		return t.host != "" && t.host != pair.Name && t.host != pair.Host && now.UnixNano()-t.at < int64(trustLasts)
	})
}

// refuse notes that a client which does not trust the CA has refused it for host.
func (c *clientRecord) refuse(host string, now time.Time) {
	for _, x := range c.encounters {
		x.settled.Store(0)
	}
	c.strangeAt = now.UnixNano()
	if c.stranger == "" {
		c.stranger = host
	}
	c.strange = c.strange || c.stranger != host
}

// again reports whether the client that has closed has done so on an occasion before, and
// not succeeded since. It notes the occasion.
func (x *encounter) again(now time.Time) bool {
	switch {
	case x.succeededBy(now):
		return false
	case now.Before(x.until):
		return true
	case !x.doubted(now):
		x.doubt = now.UnixNano()
	}
	return now.UnixNano()-x.doubt >= int64(secondOccasion)
}

// list returns the exemptions by pair; of clients without the CA only if strangers is set.
func (l *learned) list(now time.Time, strangers bool) map[Pair]*Exception {
	list := map[Pair]*Exception{}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.RLock()
		for addr, c := range s.clients {
			for _, x := range c.encounters {
				if now.Before(x.until) && (strangers || !x.stranger) {
					x.addTo(list, addr)
				}
			}
		}
		s.mu.RUnlock()
	}
	for _, x := range list {
		slices.SortFunc(x.Clients, func(a, b ExemptClient) int { return a.Client.Compare(b.Client) })
		x.Proposed = len(x.Clients) >= clientsToPropose
	}
	return list
}

// addTo adds the exemption of a client to list.
func (x *encounter) addTo(list map[Pair]*Exception, addr netip.Addr) {
	e := list[x.pair]
	if e == nil {
		e = &Exception{Host: x.pair.Host, State: Automatic, First: x.first}
		if x.pair.Name != x.pair.Host {
			e.Name = x.pair.Name
		}
		list[x.pair] = e
	}
	e.Clients = append(e.Clients, ExemptClient{
		Client: addr, Until: x.until, Evidence: x.ground, Reason: x.reason, Refusals: x.refusals,
		First: x.first, Last: x.last, WithoutCA: x.stranger,
	})
	e.Refusals += x.refusals
	if x.first.Before(e.First) {
		e.First = x.first
	}
	if x.last.After(e.Last) {
		e.Last, e.Reason = x.last, x.reason
	}
	if x.until.After(e.Until) {
		e.Until = x.until
	}
}

// forget forgets the exemptions and doubts at hosts that a pattern matches, and reports
// whether there were any.
func (l *learned) forget(pattern string) (known bool) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for _, x := range s.encounters {
			if matches(pattern, x.pair.Host) || matches(pattern, x.pair.Name) {
				known = known || !x.until.IsZero()
				x.doubt, x.exemption = 0, exemption{}
				delete(s.grants, x.key)
			}
		}
		s.mu.Unlock()
	}
	return known
}
