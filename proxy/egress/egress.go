// Package egress reaches destinations: it looks names up, refuses addresses that
// are not for clients, and dials exactly the address that it checked. With
// egress.parent it opens tunnels through another proxy, which looks names up.
package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"espalier/policy"
	"espalier/proxy/egress/lookup"
	"espalier/proxy/egress/reach"
)

// KeepAlive is set on both legs of every connection. Tablets sleep: probes come
// minutes apart, so that an idle tunnel does not wake its device.
var KeepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: time.Minute, Count: 4}

// AttemptDelay is the head start that each address has over the next one, the
// Connection Attempt Delay of RFC 8305.
const AttemptDelay = 250 * time.Millisecond

// A Dialer reaches targets. It is safe for concurrent use.
type Dialer struct {
	settings
	names   *lookup.Names
	answers *reach.Memory
	wake    chan struct{} // Watch
	timeout time.Duration
	v6      bool // IPv6 addresses are tried first
	self    *self
	dial    net.Dialer
	fds     *atomic.Int64 // descriptors have lower numbers; 0: no limit
	trusted policy.Target // the guard has no say about it
}

// New builds a Dialer of a valid Config. A request for a port that Espalier
// listens on, at any address of this machine and by whatever name, or for one of
// its names, is refused even if egress.allow names it. It would come back to
// the proxy, in the proxy's own name, or reach its console from within.
func New(cfg Config, self Self) (*Dialer, error) {
	parsed, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	d := &Dialer{
		settings: parsed, answers: reach.New(nil), wake: make(chan struct{}, 1),
		timeout: cfg.ConnectTimeout, v6: routed6(), fds: new(atomic.Int64),
	}
	d.dial = net.Dialer{KeepAliveConfig: KeepAlive, Control: d.control}
	number := dialers.Add(1)
	for i, p := range d.parents {
		p.dialer, p.token = d, fmt.Sprintf("%s-%d-%d", nonce, number, i)
	}
	d.self = d.newSelf(self)
	d.names = lookup.New(d.servers, cfg.ConnectTimeout, d.v6, nil)
	return d, nil
}

// routed6 reports whether this machine has a way to the IPv6 Internet. Nothing
// is sent: connecting a UDP socket only asks the routing table.
func routed6() bool {
	c, err := net.Dial("udp6", "[2001:db8::1]:9")
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Timeout is Config.ConnectTimeout.
func (d *Dialer) Timeout() time.Duration { return d.timeout }

// Trusting returns a Dialer like d, which shares what d remembers of names and
// parents, and whose guard has no say about t: a target that the administrator
// chose, and no client.
func (d *Dialer) Trusting(t policy.Target) *Dialer {
	trusting := *d
	trusting.trusted = t
	return &trusting
}

// Dial connects to t: it looks the name up once, checks every address, and tries
// the permitted ones as RFC 8305 says, families in turn. The address that was
// checked is the one that is dialed. Dial returns a *lookup.Error, a
// *ForbiddenError if no address is permitted, or the most telling error of an
// attempt. With egress.parent it returns a tunnel through a parent proxy, whose
// remote address is the parent's, or a *ForbiddenError or *ParentError. The
// connection is a *net.TCPConn. The whole takes egress.connect_timeout at most.
func (d *Dialer) Dial(ctx context.Context, t policy.Target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if len(d.parents) > 0 {
		return d.dialThrough(ctx, t)
	}
	addrs, err := d.lookup(ctx, t)
	if err != nil {
		return nil, err
	}
	return d.race(ctx, addrs)
}

// Immediate appends to room the addresses to try for t, in that order, if they
// are permitted, and known without asking a name server or a parent; otherwise it
// returns none. It does not block.
func (d *Dialer) Immediate(t policy.Target, room []netip.AddrPort) []netip.AddrPort {
	if len(d.parents) > 0 {
		return nil
	}
	addrs := d.known(t)
	if addrs == nil {
		addrs = d.names.Peek(t.Host)
	}
	found, _ := d.permitted(room, addrs, t, false)
	return found
}

// Lookup returns the addresses that may be dialed for t, in the order to try
// them; at least one if there is no error. Errors are those of Dial. It ignores
// egress.parent.
func (d *Dialer) Lookup(ctx context.Context, t policy.Target) ([]netip.Addr, error) {
	found, err := d.lookup(ctx, t)
	var addrs []netip.Addr
	for _, ap := range found {
		addrs = append(addrs, ap.Addr())
	}
	return addrs, err
}

func (d *Dialer) lookup(ctx context.Context, t policy.Target) ([]netip.AddrPort, error) {
	addrs, err := d.resolve(ctx, t)
	if err != nil {
		return nil, err
	}
	return d.permitted(nil, addrs, t, true)
}

// resolve returns the addresses of t, unchecked, or a *lookup.Error.
func (d *Dialer) resolve(ctx context.Context, t policy.Target) ([]netip.Addr, error) {
	if addrs := d.known(t); addrs != nil {
		return addrs, nil
	}
	return d.names.Lookup(ctx, t.Host)
}

// known returns the addresses of t if no name server has to be asked.
func (d *Dialer) known(t policy.Target) []netip.Addr {
	if t.Addr.IsValid() {
		return []netip.Addr{t.Addr}
	}
	if addrs := d.exact[t.Host]; addrs != nil {
		return addrs
	}
	for _, above, ok := strings.Cut(t.Host, "."); ok && len(d.below) > 0; _, above, ok = strings.Cut(above, ".") {
		if addrs := d.below[above]; addrs != nil {
			return addrs
		}
	}
	return nil
}

// maxAttempts bounds the addresses that are tried for one request, so that a
// hostile zone with thousands of addresses does not make the proxy knock at all
// of them.
const maxAttempts = 16

// permitted appends to room the addresses that the guard permits, in the order to
// try them, or returns the guard's error about the first. It permits none that
// leads to Espalier itself. If that takes asking the system for this machine's
// addresses, and ask is not set, it appends none.
func (d *Dialer) permitted(room []netip.AddrPort, addrs []netip.Addr, t policy.Target, ask bool) ([]netip.AddrPort, error) {
	var machine map[netip.Addr]bool
	listens := d.self.ports[t.Port]
	if listens {
		if machine = d.self.addresses(ask); machine == nil && !ask {
			return nil, nil
		}
	}
	named := d.self.names[t]
	return d.arrange(room, addrs, t.Port, func(a netip.Addr) error {
		switch {
		case named, listens && d.self.is(a, machine), d.self.fronts(netip.AddrPortFrom(a, t.Port)):
			return &ForbiddenError{a, classSelf}
		case t == d.trusted:
			return nil
		}
		return d.guard.check(a)
	})
}

// arrange appends to room, up to maxAttempts, the addresses that pass check: IPv6
// and IPv4 in turn, those that are known not to answer last. If none passes it
// returns the error about the first. It does not allocate.
func (d *Dialer) arrange(room []netip.AddrPort, addrs []netip.Addr, port uint16, check func(netip.Addr) error) ([]netip.AddrPort, error) {
	// In the order to try them: 1 + their indices, 0 for none. They are alive before dead,
	// and among those the families in turn.
	var order [4 * maxAttempts]int32
	var counts [4]int
	var failed error
	for i, a := range addrs {
		a = a.Unmap()
		if err := check(a); err != nil {
			if failed == nil {
				failed = err
			}
			continue
		}
		dead, other := 0, 0
		if d.answers.Unreachable(netip.AddrPortFrom(a, port)) {
			dead = 1
		}
		if a.Is6() != d.v6 {
			other = 1
		}
		if n := &counts[2*dead+other]; *n < maxAttempts {
			order[2*(dead*maxAttempts+*n)+other] = int32(i) + 1
			*n++
		}
	}
	out := room
	for _, i := range &order {
		if i > 0 && len(out) < maxAttempts {
			out = append(out, netip.AddrPortFrom(addrs[i-1].Unmap(), port))
		}
	}
	if len(out) == 0 {
		return nil, failed
	}
	return out, nil
}

// KeepBelow lets d take no descriptor from number limit on: dialing fails with
// EMFILE then, so that many addresses or requests leave the last descriptors to
// others. It may be called at any time; 0 means no limit.
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
