package policy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// A Target is where a request wants to go, normalised once at the edge. Two
// targets that mean the same place are equal.
type Target struct {
	// Host is a lower-case ASCII name without trailing dot, or the canonical
	// text of Addr (no brackets).
	Host string
	// Addr is valid when Host is an IP literal. IPv4-mapped literals are
	// unmapped.
	Addr netip.Addr
	// Port is never 0.
	Port uint16
}

// String returns host:port, with brackets round an IPv6 literal.
func (t Target) String() string {
	if t.Addr.Is6() {
		return "[" + t.Host + "]:" + strconv.Itoa(int(t.Port))
	}
	return t.Host + ":" + strconv.Itoa(int(t.Port))
}

// ParseTarget normalises "host:port" as it stands in a CONNECT request or an
// absolute URL. Where the port is missing or empty, defaultPort is taken; 0
// makes it mandatory. An IPv6 address needs its brackets, for without them
// nobody can say where it ends and the port begins. The error is safe to show
// to a client and names no more than the fault.
func ParseTarget(hostport string, defaultPort uint16) (Target, error) {
	host, port := hostport, ""
	if strings.HasPrefix(hostport, "[") {
		end := strings.IndexByte(hostport, ']')
		if end < 0 {
			return Target{}, errors.New("missing ] in host")
		}
		host = hostport[:end+1]
		if rest := hostport[end+1:]; rest != "" {
			if rest[0] != ':' {
				return Target{}, errors.New("unexpected text after ] in host")
			}
			port = rest[1:]
		}
	} else {
		host, port, _ = strings.Cut(hostport, ":")
		if strings.IndexByte(port, ':') >= 0 {
			return Target{}, errors.New("more than one colon (an IPv6 address needs brackets)")
		}
	}
	t := Target{Port: defaultPort}
	var err error
	if port != "" {
		if t.Port, err = ParsePort(port); err != nil {
			return Target{}, err
		}
	} else if defaultPort == 0 {
		return Target{}, errors.New("missing port")
	}
	if t.Host, t.Addr, err = ParseHost(host); err != nil {
		return Target{}, err
	}
	return t, nil
}

// ParseListen returns the address of a listen address, "HOST:PORT" with an IP address
// or nothing for all, which is the unspecified one. Port 0 is any. The error shows
// addresses with the port example.
func ParseListen(s string, example uint16) (netip.Addr, error) {
	host, port, err := net.SplitHostPort(s)
	addr := netip.IPv6Unspecified()
	if err == nil && host != "" {
		addr, err = netip.ParseAddr(host)
	}
	if err == nil && port != "0" {
		_, err = ParsePort(port)
	}
	if err != nil {
		return addr, fmt.Errorf("%q is no listen address (allowed: \":%d\", \"192.0.2.1:%[2]d\", \"[2001:db8::1]:%[2]d\")", s, example)
	}
	return addr, nil
}

// ParsePort parses a decimal port from 1 to 65535: digits only, no sign.
func ParsePort(s string) (uint16, error) {
	if s == "" || len(s) > 5 {
		return 0, errors.New("port is not a number from 1 to 65535")
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, errors.New("port is not a number from 1 to 65535")
		}
		n = n*10 + int(s[i]-'0')
	}
	if n < 1 || n > 65535 {
		return 0, errors.New("port is not a number from 1 to 65535")
	}
	return uint16(n), nil
}

// ParseHost normalises a host name or IP literal: lower case, one trailing dot
// removed, IDNA to ASCII as browsers do it (UTS #46), brackets removed,
// IPv4-mapped literals unmapped. It returns the name and an invalid address, or
// an address and its canonical text; what it returns, it leaves as it is.
//
// It refuses what only some resolvers would take for an address ("127.1",
// "0x7f.0.0.1", "2130706433"): such a name would be checked as one thing and
// reached as another. It refuses zone ids, empty or overlong labels, and any
// byte outside letters, digits, "-" and "_". It does not allocate for a name
// that is already normal.
func ParseHost(s string) (string, netip.Addr, error) {
	if strings.HasPrefix(s, "[") {
		inner, ok := strings.CutSuffix(s[1:], "]")
		if !ok {
			return "", netip.Addr{}, errors.New("missing ] in host")
		}
		a, err := netip.ParseAddr(inner)
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", netip.Addr{}, errors.New("brackets hold no IPv6 address")
		}
		a = a.Unmap()
		return a.String(), a, nil
	}
	if strings.IndexByte(s, ':') >= 0 {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return "", netip.Addr{}, errors.New("host is neither a name nor an address")
		}
		a = a.Unmap()
		return a.String(), a, nil
	}
	s, err := normaliseName(s)
	if err != nil {
		return "", netip.Addr{}, err
	}
	if last := s[strings.LastIndexByte(s, '.')+1:]; numeric(last) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return "", netip.Addr{}, errors.New("host looks like an address but is none")
		}
		return s, a, nil
	}
	return s, netip.Addr{}, nil
}

// numeric reports whether a last label makes the whole host an IPv4 address in
// the sense of the WHATWG URL standard: all digits, or hexadecimal with 0x.
func numeric(label string) bool {
	if x, ok := strings.CutPrefix(label, "0x"); ok {
		for i := 0; i < len(x); i++ {
			if !('0' <= x[i] && x[i] <= '9' || 'a' <= x[i] && x[i] <= 'f') {
				return false
			}
		}
		return true
	}
	for i := 0; i < len(label); i++ {
		if label[i] < '0' || label[i] > '9' {
			return false
		}
	}
	return label != ""
}

// maxInput bounds what is given to IDNA, whose cost grows with the square of a
// label's length. What maps to a valid name is shorter.
const maxInput = 1024

// normaliseName checks a DNS name and brings it to lower-case ASCII without a
// trailing dot.
func normaliseName(s string) (string, error) {
	upper, ascii := false, true
	for i := 0; i < len(s); i++ {
		c := s[i]
		upper = upper || 'A' <= c && c <= 'Z'
		ascii = ascii && c < 0x80
	}
	switch {
	case len(s) > maxInput:
		return "", errors.New("host is longer than 253 bytes")
	case !ascii:
		// Full-width forms and ideographic dots become ASCII, so what comes out
		// is checked below like any other name.
		a, err := idna.Lookup.ToASCII(s)
		if err != nil || !utf8.ValidString(s) { // which IDNA mends in places
			return "", errors.New("host is not a valid international name")
		}
		s = a
	case upper:
		s = strings.ToLower(s)
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" {
		return "", errors.New("empty host")
	}
	if len(s) > 253 {
		return "", errors.New("host is longer than 253 bytes")
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			switch n := i - start; {
			case n == 0:
				return "", errors.New("host has an empty label")
			case n > 63:
				return "", errors.New("host has a label longer than 63 bytes")
			}
			start = i + 1
			continue
		}
		c := s[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return "", fmt.Errorf("host has a byte %q that no name may have", c)
		}
	}
	return s, nil
}

// ParsePattern normalises a host pattern: a name, "*.x" for the names below x,
// an IP literal or a CIDR block.
func ParsePattern(s string) (string, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		p, err = canonicalPrefix(s, p)
		if err != nil {
			return "", err
		}
		return p.String(), nil
	}
	rest, wild := strings.CutPrefix(s, "*.")
	host, addr, err := ParseHost(rest)
	switch {
	case err != nil:
		return "", fmt.Errorf("%q is no host pattern: %w (allowed: a name, *.name, an address or a CIDR block)", s, err)
	case wild && addr.IsValid():
		return "", fmt.Errorf("%q is no host pattern: an address takes no *. before it", s)
	case wild:
		return "*." + host, nil
	}
	return host, nil
}

// canonicalPrefix checks a CIDR block that s was parsed to. A block of
// IPv4-mapped addresses becomes the IPv4 block, as an address would.
func canonicalPrefix(s string, p netip.Prefix) (netip.Prefix, error) {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q has bits set behind the prefix; did you mean %s?", s, p.Masked())
	}
	return p, nil
}
