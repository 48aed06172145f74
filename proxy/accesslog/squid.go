package accesslog

import (
	"net/netip"
	"strconv"
	"strings"

	"espalier/policy"
)

// squidEncoder writes the native log format of Squid, fields divided by spaces:
//
//	time elapsed client code/status bytes method URL user hierarchy/peer type
//
// time is in seconds with milliseconds, elapsed in milliseconds, bytes what
// went to the client. The codes are those that analysers know:
//
//	tunnel                 TCP_TUNNEL    forward, inspected requests  TCP_MISS
//	deny, challenge        TCP_DENIED    CONNECT that is intercepted  NONE_NONE
//	error                  TCP_TUNNEL or TCP_MISS, with the status of the error
//
// hierarchy is HIER_DIRECT where an upstream was reached and HIER_NONE where
// not; the type is not known to a tunnel and always "-". Whatever is no
// printable ASCII, and spaces, are percent-encoded, in users the percent sign
// too.
type squidEncoder struct{}

func (squidEncoder) append(b []byte, r *Record) []byte {
	b = appendPadded(b, r.Time.Unix(), 10, ' ')
	b = append(b, '.')
	b = appendPadded(b, int64(r.Time.Nanosecond()/1e6), 3, '0')
	b = append(b, ' ')
	b = appendPadded(b, max(r.Duration.Milliseconds(), 0), 6, ' ')
	b = append(b, ' ')
	b = appendAddrOrDash(b, r.Client)
	b = append(b, ' ')
	b = append(b, squidCode(r)...)
	b = append(b, '/')
	b = appendPadded(b, int64(r.Status), 3, '0')
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.Down, 10)
	b = append(b, ' ')
	b = appendEscaped(b, r.Method, maxMethod, false)
	b = append(b, ' ')
	if r.URL != "" {
		b = appendEscaped(b, r.URL, maxURL, false)
	} else {
		b = appendHostPort(b, r.Host, r.Port)
	}
	b = append(b, ' ')
	b = appendEscaped(b, r.User, maxUser, true)
	if r.Upstream.IsValid() {
		b = append(b, " HIER_DIRECT/"...)
		b = appendAddr(b, r.Upstream.Addr())
	} else {
		b = append(b, " HIER_NONE/-"...)
	}
	return append(b, " -\n"...)
}

func squidCode(r *Record) string {
	connect := r.Method == "CONNECT"
	switch {
	case r.Action == policy.Deny || r.Action == policy.Challenge:
		return "TCP_DENIED"
	case r.Action == policy.Inspect && connect:
		return "NONE_NONE"
	case connect:
		return "TCP_TUNNEL"
	}
	return "TCP_MISS"
}

func appendAddrOrDash(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(b, '-')
	}
	return appendAddr(b, a)
}

func appendHostPort(b []byte, host string, port uint16) []byte {
	if strings.Contains(host, ":") {
		b = append(b, '[')
		b = appendEscaped(b, host, maxHost, false)
		b = append(b, ']')
	} else {
		b = appendEscaped(b, host, maxHost, false)
	}
	b = append(b, ':')
	return strconv.AppendUint(b, uint64(port), 10)
}

// appendEscaped appends at most limit bytes of s, percent-encoded so that they
// stay one field; "-" where there is nothing.
func appendEscaped(b []byte, s string, limit int, percent bool) []byte {
	if s == "" {
		return append(b, '-')
	}
	const hex = "0123456789ABCDEF"
	for i := range min(len(s), limit) {
		if c := s[i]; c <= ' ' || c >= 0x7f || percent && c == '%' {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// appendPadded appends n, filled up to width from the left.
func appendPadded(b []byte, n int64, width int, fill byte) []byte {
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], n, 10)
	for range width - len(d) {
		b = append(b, fill)
	}
	return append(b, d...)
}
