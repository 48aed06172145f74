package inspect

import (
	"maps"
	"net/netip"
	"strings"
	"time"
)

// acts are what administrators have said, by host pattern as policy.ParsePattern
// returns it. They are not modified: a change makes others.
type acts map[string]act

type act struct {
	state string // Accepted or Refused
	at    time.Time
}

// with returns acts with one more or changed.
func (a acts) with(pattern string, x act) acts {
	next := maps.Clone(a)
	if next == nil {
		next = acts{}
	}
	next[pattern] = x
	return next
}

// without returns acts without one.
func (a acts) without(pattern string) acts {
	next := maps.Clone(a)
	delete(next, pattern)
	return next
}

// state returns what the most specific pattern says about a normalised host; "" if no
// pattern matches. It does not allocate.
func (a acts) state(host string) string {
	if len(a) == 0 {
		return ""
	}
	if x, ok := a[host]; ok {
		return x.state
	}
	if last := host[len(host)-1]; '0' <= last && last <= '9' || strings.Contains(host, ":") {
		if addr, err := netip.ParseAddr(host); err == nil {
			return a.ofBlock(addr)
		}
	}
	var room [256]byte // a name has at most 253 bytes
	for rest := host; ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return ""
		}
		if x, ok := a[string(append(append(room[:0], "*."...), parent...))]; ok {
			return x.state
		}
		rest = parent
	}
}

// ofBlock is state for an address.
func (a acts) ofBlock(addr netip.Addr) (state string) {
	bits := -1
	for pattern, x := range a {
		if strings.IndexByte(pattern, '/') < 0 {
			continue
		}
		if p, err := netip.ParsePrefix(pattern); err == nil && p.Bits() > bits && p.Contains(addr) {
			bits, state = p.Bits(), x.state
		}
	}
	return state
}

// matches reports whether a pattern matches a normalised host.
func matches(pattern, host string) bool { return acts{pattern: {state: Accepted}}.state(host) != "" }
