package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

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
// absolute URL. Where the port is missing, defaultPort is taken; 0 makes it
// mandatory. The error is safe to show to a client and names no more than the
// fault.
func ParseTarget(hostport string, defaultPort uint16) (Target, error) {
	host, port := hostport, ""
	hasPort := false
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
			port, hasPort = rest[1:], true
		}
	} else if i := strings.LastIndexByte(hostport, ':'); i >= 0 {
		host, port, hasPort = hostport[:i], hostport[i+1:], true
	}
	t := Target{Port: defaultPort}
	if hasPort {
		p, err := ParsePort(port)
		if err != nil {
			return Target{}, err
		}
		t.Port = p
	}
	if t.Port == 0 {
		return Target{}, errors.New("missing port")
	}
	var err error
	t.Host, t.Addr, err = ParseHost(host)
	return t, err
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
// removed, IDNA to ASCII, brackets removed. It returns the name and an invalid
// address, or an address and its canonical text.
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

// normaliseName checks a DNS name and brings it to lower-case ASCII without a
// trailing dot.
func normaliseName(s string) (string, error) {
	if n := len(s); n > 0 && s[n-1] == '.' {
		s = s[:n-1]
	}
	upper, ascii := false, true
	for i := 0; i < len(s); i++ {
		c := s[i]
		upper = upper || 'A' <= c && c <= 'Z'
		ascii = ascii && c < 0x80
	}
	if !ascii {
		// Lookup maps full-width forms and ideographic dots as browsers do, so
		// what comes out is checked again below.
		a, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", errors.New("host is not a valid international name")
		}
		s = strings.TrimSuffix(a, ".")
	} else if upper {
		s = strings.ToLower(s)
	}
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
		if p != p.Masked() {
			return "", fmt.Errorf("%q has bits set behind the prefix; did you mean %s?", s, p.Masked())
		}
		return p.String(), nil
	}
	rest, wild := strings.CutPrefix(s, "*.")
	host, addr, err := ParseHost(rest)
	switch {
	case err != nil:
		return "", fmt.Errorf("%q is no host pattern: %w (allowed: a name, *.name, an address or a CIDR block)", s, err)
	case wild && addr.IsValid():
		return "", fmt.Errorf("%q is no host pattern: an address takes no *.", s)
	case wild:
		return "*." + host, nil
	}
	return host, nil
}
