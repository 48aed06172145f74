// Package egress reaches destinations: it looks names up, refuses addresses that
// are not for clients, and dials exactly the address that it checked. With
// egress.parent it opens tunnels through another proxy, which looks names up.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"espalier/policy"
)

// KeepAlive is set on both legs of every connection. Tablets sleep: probes come
// minutes apart, so that an idle tunnel does not wake its device.
var KeepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: time.Minute, Count: 4}

// attemptDelay is the head start that each address has over the next one, the
// Connection Attempt Delay of RFC 8305.
const attemptDelay = 250 * time.Millisecond

// A LookupError says that a name could not be resolved.
type LookupError struct {
	Host string
	Err  error
}

func (e *LookupError) Error() string { return fmt.Sprintf("look up %s: %v", e.Host, e.Err) }
func (e *LookupError) Unwrap() error { return e.Err }

// NotFound reports whether the name does not exist or has no address, in
// contrast to a name server that failed.
func (e *LookupError) NotFound() bool { return errors.Is(e.Err, errNotFound) }

// NoAddress reports whether the name is known to exist, and has no address. The
// system's resolver does not tell.
func (e *LookupError) NoAddress() bool { return errors.Is(e.Err, errNoAddress) }

// A Dialer reaches targets. It is safe for concurrent use.
type Dialer struct {
	parents []*Parent // in the order of preference; empty: destinations are reached directly
	guard   guard
	exact   map[string][]netip.Addr // egress.hosts
	below   map[string][]netip.Addr // egress.hosts, "*.x" by x
	cache   *cache
	timeout time.Duration
	v6      bool // IPv6 addresses are tried first
	self    *self
	dial    net.Dialer
	fds     *atomic.Int64 // descriptors have lower numbers; 0: no limit
	trusted policy.Target // the guard has no say about it
}

// New builds a Dialer of a valid Config. A request for a port that Espalier
// listens on, at any address of this machine and by whatever name, or for one of
// its names, is refused even where egress.allow names it. It would come back to
// the proxy, in the proxy's own name, or reach its console from within.
func New(cfg Config, self Self) (*Dialer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &Dialer{
		exact:   map[string][]netip.Addr{},
		below:   map[string][]netip.Addr{},
		timeout: cfg.ConnectTimeout,
		v6:      routed6(),
		dial:    net.Dialer{KeepAliveConfig: KeepAlive},
	}
	d.fds, d.dial.Control = new(atomic.Int64), d.control
	d.parents, _ = parseParents(cfg.Parent)
	d.guard.allow, _ = policy.ParseNetworks(cfg.Allow)
	for _, s := range cfg.NAT64 {
		p, _ := parseNAT64(s)
		d.guard.nat64 = append(d.guard.nat64, p)
	}
	for name, list := range cfg.Hosts {
		addrs, _ := parseAddrs(list)
		if x, ok := strings.CutPrefix(name, "*."); ok {
			d.below[x] = addrs
		} else {
			d.exact[name] = addrs
		}
	}
	d.self = d.newSelf(self)
	var r resolver = systemResolver{}
	if len(cfg.DNS) > 0 {
		servers := make([]string, len(cfg.DNS))
		for i, s := range cfg.DNS {
			servers[i], _ = ParseServer(s)
		}
		r = &dnsResolver{servers: servers, timeout: questionTimeout(cfg.ConnectTimeout, len(servers))}
	}
	d.cache = newCache(r, cfg.ConnectTimeout)
	return d, nil
}

// Trusting returns a Dialer like d, which shares what d remembers of names and
// parents, and whose guard has no say about t: a target that the administrator
// chose, and no client.
func (d *Dialer) Trusting(t policy.Target) *Dialer {
	trusting := *d
	trusting.trusted = t
	return &trusting
}

// Dial connects to t: looks the name up once, checks every address, and tries
// the permitted ones as RFC 8305 says, families in turn. The address that was
// checked is the one that is dialed. Dial returns a *LookupError, a
// *ForbiddenError where no address is permitted, or the most telling error of an
// attempt. With egress.parent it returns a tunnel through a parent proxy, whose
// remote address is the parent's, or a *ForbiddenError or *ParentError. The
// connection is a *net.TCPConn. The whole takes egress.connect_timeout at most.
func (d *Dialer) Dial(ctx context.Context, t policy.Target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if len(d.parents) > 0 {
		return d.dialThrough(ctx, t)
	}
	addrs, err := d.Lookup(ctx, t)
	if err != nil {
		return nil, err
	}
	return d.race(ctx, addrs, t.Port)
}

// Lookup returns the addresses that may be dialed for t, in the order to try
// them; at least one where there is no error. Errors are those of Dial. It does
// not heed egress.parent.
func (d *Dialer) Lookup(ctx context.Context, t policy.Target) ([]netip.Addr, error) {
	if addrs := d.known(t); addrs != nil {
		return d.permitted(addrs, t)
	}
	addrs, err := d.cache.lookup(ctx, t.Host)
	if err != nil {
		return nil, &LookupError{t.Host, err}
	}
	return d.permitted(addrs, t)
}

// known returns the addresses of t where no name server has to be asked.
func (d *Dialer) known(t policy.Target) []netip.Addr {
	if t.Addr.IsValid() {
		return []netip.Addr{t.Addr}
	}
	if addrs := d.exact[t.Host]; addrs != nil {
		return addrs
	}
	for rest := t.Host; len(d.below) > 0; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		if addrs := d.below[parent]; addrs != nil {
			return addrs
		}
		rest = parent
	}
	return nil
}

// maxAttempts bounds the addresses that are tried for one request, so that a
// hostile zone with thousands of addresses does not make the proxy knock at all
// of them.
const maxAttempts = 16

// permitted returns the addresses that the guard lets through, in the order to
// try them, or the guard's error about the first. What leads to Espalier itself is
// not let through.
func (d *Dialer) permitted(addrs []netip.Addr, t policy.Target) ([]netip.Addr, error) {
	guard := d.guard.check
	if t == d.trusted {
		guard = func(netip.Addr) error { return nil }
	}
	var machine map[netip.Addr]bool
	listens := d.self.ports[t.Port]
	if listens {
		machine = d.self.addresses(true)
	}
	return d.arrange(addrs, func(a netip.Addr) error {
		if listens && d.self.is(a, machine) || d.self.fronts(t, a) {
			return &ForbiddenError{a, classSelf}
		}
		return guard(a)
	})
}

// arrange returns the addresses that pass check, IPv6 and IPv4 in turn, or the
// error about the first.
func (d *Dialer) arrange(addrs []netip.Addr, check func(netip.Addr) error) ([]netip.Addr, error) {
	var v4, v6 []netip.Addr
	var first error
	for _, a := range addrs {
		a = a.Unmap()
		if err := check(a); err != nil {
			if first == nil {
				first = err
			}
		} else if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	out := make([]netip.Addr, 0, len(v4)+len(v6))
	preferred, other := v6, v4
	if !d.v6 {
		preferred, other = v4, v6
	}
	for i := range max(len(v4), len(v6)) {
		if i < len(preferred) {
			out = append(out, preferred[i])
		}
		if i < len(other) {
			out = append(out, other[i])
		}
	}
	if len(out) == 0 {
		return nil, first
	}
	return out[:min(len(out), maxAttempts)], nil
}

// KeepBelow lets d take no descriptor from number limit on: dialing fails with
// EMFILE then. So one request whose name has many addresses, or many requests at
// once, leave the last descriptors to others. It may be called at any time; 0
// means no limit.
func (d *Dialer) KeepBelow(limit int) { d.fds.Store(int64(limit)) }

// control is net.Dialer.Control.
func (d *Dialer) control(_, _ string, c syscall.RawConn) error {
	limit := d.fds.Load()
	if limit == 0 {
		return nil
	}
	var short bool
	if err := c.Control(func(fd uintptr) { short = int64(fd) >= limit }); err != nil {
		return err
	}
	if short {
		return os.NewSyscallError("socket", syscall.EMFILE)
	}
	return nil
}

// race connects to the first address that answers. A new attempt starts when
// one fails, or attemptDelay after the last one began.
func (d *Dialer) race(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	if len(addrs) == 1 {
		return d.dial.DialContext(ctx, "tcp", netip.AddrPortFrom(addrs[0], port).String())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	abandoned := make(chan struct{})
	defer close(abandoned)
	dial := func(a netip.Addr) (_ net.Conn, err error) {
		defer kept(&err)
		return d.dial.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
	}
	attempt := func(a netip.Addr) {
		conn, err := dial(a)
		select {
		case results <- result{conn, err}:
		case <-abandoned:
			if conn != nil {
				conn.Close()
			}
		}
	}
	delay := time.NewTimer(0)
	defer delay.Stop()
	var failed error
	for next, pending := 0, 0; ; {
		select {
		case <-delay.C:
			if next < len(addrs) {
				go attempt(addrs[next])
				next++
				pending++
				delay.Reset(attemptDelay)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			pending--
			if failed == nil || isUnroutable(failed) {
				failed = r.err
			}
			if next < len(addrs) && ctx.Err() == nil {
				delay.Reset(0)
			} else if pending == 0 {
				return nil, failed
			}
		}
	}
}

// isUnroutable reports whether err says only that this machine has no way to
// the address, as with every IPv6 address where there is no IPv6. What another
// address said tells more.
func isUnroutable(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}
