package policy

import (
	"fmt"
	"slices"
	"strings"
)

// A PortRange is a span of ports, both ends included. The zero value holds none.
type PortRange struct{ First, Last uint16 }

// DefaultPorts returns the ports of a Config without any: those of HTTP and HTTPS,
// and all from 1024 on. The others below 1024 belong to services such as mail (25),
// which must not be reached in the proxy's name.
func DefaultPorts() []PortRange { return []PortRange{{80, 80}, {443, 443}, {1024, 65535}} }

// UnmarshalText parses a port ("443") or a span of ports ("1024-65535").
func (r *PortRange) UnmarshalText(text []byte) error {
	from, to, span := strings.Cut(string(text), "-")
	if !span {
		to = from
	}
	first, err := ParsePort(strings.TrimSpace(from))
	last, errLast := ParsePort(strings.TrimSpace(to))
	switch {
	case err != nil || errLast != nil:
		return fmt.Errorf("invalid port %q (allowed: 1 to 65535, or a range such as 1024-65535)", text)
	case first > last:
		return fmt.Errorf("invalid port range %q: the first port is above the last (write \"%d-%d\")", text, last, first)
	}
	r.First, r.Last = first, last
	return nil
}

// String returns the text that UnmarshalText parses.
func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

func (r PortRange) contains(port uint16) bool { return r.First <= port && port <= r.Last }

// opens reports whether requests may reach port without a rule that names it.
func (p *Policy) opens(port uint16) bool {
	return slices.ContainsFunc(p.ports, func(r PortRange) bool { return r.contains(port) })
}
