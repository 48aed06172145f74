package lookup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"espalier/proxy/egress/reach"
	"espalier/proxy/panics"
)

// A resolver asks for the addresses of a name. ttl says how long the answer
// holds, also errNotFound; any other error says nothing of the name. Without an
// error there is at least one address.
type resolver interface {
	lookup(ctx context.Context, name string) (addrs []netip.Addr, ttl time.Duration, err error)
}

const (
	systemTTL = 30 * time.Second // the system's resolver tells no TTL
	minTTL    = 1 * time.Second
	maxTTL    = time.Hour
	// negativeTTL bounds how long a failure is believed. RFC 2308 allows more, but
	// administrators who fix a zone should not have to wait.
	negativeTTL = 10 * time.Second
)

// errNotFound says that a name has no address. The system's resolver does not
// tell why; the other two do, and are errNotFound too.
var (
	errNotFound  = errors.New("no such name, or it has no address")
	errNoName    = error(notFound("no such name"))
	errNoAddress = error(notFound("the name has no address"))
)

// notFound is an errNotFound that says more.
type notFound string

func (e notFound) Error() string        { return string(e) }
func (e notFound) Is(target error) bool { return target == errNotFound }

// systemResolver asks the way every other program on the machine does.
type systemResolver struct{}

func (systemResolver) lookup(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	if strings.IndexByte(name, '.') >= 0 {
		// The final dot keeps the search domains of resolv.conf out. A name
		// without any dot is what they, and the hosts file, are for.
		name += "."
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if dnsErr := (*net.DNSError)(nil); errors.As(err, &dnsErr) && dnsErr.IsNotFound || err == nil && len(addrs) == 0 {
		return nil, negativeTTL, errNotFound
	}
	if err != nil {
		return nil, 0, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, systemTTL, nil
}

// dnsResolver asks the servers of egress.dns, over UDP and, if an answer was
// cut, over TCP. The next server is asked when one does not answer or fails,
// and all of them once more if none had an answer: a datagram may be lost.
// Servers that did not answer lately are asked last.
type dnsResolver struct {
	servers []string      // address:port
	timeout time.Duration // for one question to one server
	v6      bool          // IPv6 addresses alone are of use
	answers *reach.Memory
}

// ParseServer parses a DNS server; the port is 53 where missing.
func ParseServer(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return net.JoinHostPort(a.String(), "53"), nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return ap.String(), nil
	}
	return "", fmt.Errorf("%q is no name server (allowed: an address or address:port)", s)
}

const (
	rounds = 2
	// maxAliases bounds the aliases on the way to an address, as resolvers do.
	maxAliases = 16
	// ednsSize fits any path without fragments (DNS flag day 2020). A server that only
	// UDP reaches, and that cuts its answer to that, is asked for ednsLarge.
	ednsSize, ednsLarge = 1232, 4096
	// cutTimeout is how long TCP may take for the rest of an answer that already
	// has addresses: some firewalls drop TCP to port 53.
	cutTimeout = 500 * time.Millisecond
	// resolutionDelay is how long an answer for one family waits for the other (RFC
	// 8305, section 3): some name servers drop questions for IPv6.
	resolutionDelay = 50 * time.Millisecond
	// noNameDelay is how long IPv6's "no such name" waits for IPv4: some name servers
	// say so of names that have IPv4 addresses only (RFC 4074, section 4.2).
	noNameDelay = 500 * time.Millisecond
)

// questionTimeout is how long one server may take, so that all rounds fit into
// the time that a client waits.
func questionTimeout(total time.Duration, servers int) time.Duration {
	return min(max(total/time.Duration(rounds*servers), 100*time.Millisecond), 2*time.Second)
}

// errLate takes the place of an answer that was not waited for.
var errLate = errors.New("no answer yet")

type answer struct {
	addrs []netip.Addr
	ttl   time.Duration
	err   error
	alias string // to ask for: an alias leads there, and nothing said where that is
}

func (r *dnsResolver) lookup(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	v4, v6 := r.askBoth(ctx, name)
	both := [...]answer{v4, v6}
	if len(v4.addrs)+len(v6.addrs) > 0 {
		ttl := maxTTL
		for _, a := range both {
			switch {
			case a.err == nil:
				ttl = min(ttl, a.ttl)
			case len(v4.addrs) == 0 && a.err == errLate:
				ttl = minTTL // IPv4 is the way out where IPv6 leads nowhere
			case !errors.Is(a.err, errNotFound):
				ttl = min(ttl, negativeTTL) // half an answer: ask again soon
			}
		}
		return append(v4.addrs, v6.addrs...), ttl, nil
	}
	for _, a := range both {
		if errors.Is(a.err, errNoName) { // which holds for both (RFC 2308, section 5)
			return nil, a.ttl, a.err
		}
	}
	for _, a := range both {
		if !errors.Is(a.err, errNotFound) {
			return nil, 0, a.err
		}
	}
	return nil, min(v4.ttl, v6.ttl), v4.err
}

// askBoth asks for both families at once, and waits for the second answer as long as
// the first one says. Until then its error is errLate.
func (r *dnsResolver) askBoth(ctx context.Context, name string) (v4, v6 answer) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := func(qtype uint16) <-chan answer {
		out := make(chan answer, 1)
		go func() { out <- r.ask(ctx, name, qtype) }()
		return out
	}
	c4, c6 := start(dns.TypeA), start(dns.TypeAAAA)
	v4.err, v6.err = errLate, errLate
	var enough <-chan time.Time // nil: both are waited for
	for range 2 {
		select {
		case v4 = <-c4:
			if v4.err == nil || errors.Is(v4.err, errNoName) {
				enough = time.After(resolutionDelay)
			}
		case v6 = <-c6:
			switch {
			case v6.err == nil && r.v6:
				enough = time.After(resolutionDelay)
			case errors.Is(v6.err, errNoName):
				enough = time.After(noNameDelay)
			}
		case <-enough:
		}
	}
	return v4, v6
}

// ask asks for the addresses of name, and follows the aliases that a server does
// not.
func (r *dnsResolver) ask(ctx context.Context, name string, qtype uint16) (a answer) {
	defer panics.Keep(&a.err)
	ttl := maxTTL
	a.alias = name + "."
	for range maxAliases {
		if a = r.askServers(ctx, a.alias, qtype); a.alias == "" {
			break
		}
		ttl = min(ttl, a.ttl)
	}
	if a.ttl = min(a.ttl, ttl); a.err != nil {
		a.ttl = min(a.ttl, negativeTTL)
	}
	return a
}

// askServers puts one question to the servers in turn.
func (r *dnsResolver) askServers(ctx context.Context, name string, qtype uint16) answer {
	var last error
	for range rounds {
		for _, server := range r.order() {
			m, err := r.exchange(ctx, dns.Question{Name: name, Qtype: qtype, Qclass: dns.ClassINET}, server)
			switch {
			case err != nil:
				last = fmt.Errorf("name server %s: %w", server, err)
			case m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError:
				return addresses(m, name, qtype)
			default:
				last = fmt.Errorf("name server %s: answers %s", server, dns.RcodeToString[m.Rcode])
			}
			if ctx.Err() != nil {
				return answer{err: last}
			}
		}
	}
	return answer{err: last}
}

// order returns the servers, those last that did not answer lately.
func (r *dnsResolver) order() []string {
	var list, silent []string
	for _, s := range r.servers {
		if r.answers.Unreachable(netip.MustParseAddrPort(s)) {
			silent = append(silent, s)
		} else {
			list = append(list, s)
		}
	}
	return append(list, silent...)
}

// exchange puts a question to server: again without EDNS where the server does not
// know that (RFC 6891, section 7), and over TCP where the answer was cut. If TCP
// does not work it returns what addresses the cut answer has, or a longer one.
func (r *dnsResolver) exchange(ctx context.Context, question dns.Question, server string) (*dns.Msg, error) {
	udp := func(size uint16) (*dns.Msg, error) {
		return r.exchangeOver(ctx, "udp", question, size, server, r.timeout)
	}
	m, err := udp(ednsSize)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented || m.Rcode == dns.RcodeBadVers) {
		m, err = udp(0)
	}
	if ctx.Err() == nil {
		if to := netip.MustParseAddrPort(server); err != nil {
			r.answers.Failed(to, err)
		} else {
			r.answers.Reached(to)
		}
	}
	if err != nil || !m.Truncated {
		return m, err
	}
	timeout := r.timeout
	has := len(addresses(m, question.Name, question.Qtype).addrs) > 0
	if has {
		timeout = min(timeout, cutTimeout)
	}
	whole, err := r.exchangeOver(ctx, "tcp", question, ednsSize, server, timeout)
	switch {
	case err == nil || ctx.Err() != nil:
		return whole, err
	case has:
		for _, rr := range m.Answer { // half an answer: ask again soon
			rr.Header().Ttl = min(rr.Header().Ttl, uint32(negativeTTL/time.Second))
		}
		return m, nil
	}
	if m, lerr := udp(ednsLarge); lerr == nil && !m.Truncated {
		return m, nil
	}
	return nil, err
}

// exchangeOver asks over network, with EDNS where size is not 0, and waits for the
// answer to this question: others may be forged, or late.
func (r *dnsResolver) exchangeOver(ctx context.Context, network string, question dns.Question, size uint16, server string, timeout time.Duration) (*dns.Msg, error) {
	q := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id(), RecursionDesired: true}, Question: []dns.Question{question}}
	if size > 0 {
		q.SetEdns0(size, false)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := dns.Client{Net: network}
	conn, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	conn.UDPSize = size
	err = conn.WriteMsg(q)
	for err == nil {
		var m *dns.Msg
		if m, err = conn.ReadMsg(); answers(m, err, q) {
			return m, nil
		}
		if _, failed := errors.AsType[net.Error](err); !failed && !errors.Is(err, io.EOF) {
			err = nil // it was no message
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err() // not that a deadline was set
	}
	return nil, err
}

// answers reports whether m, read with err, is the answer to q. One that was cut
// may end amid a record. A server that cannot read the question need not repeat it.
func answers(m *dns.Msg, err error, q *dns.Msg) bool {
	if m == nil || err != nil && !m.Truncated || m.Id != q.Id || !m.Response {
		return false
	}
	if len(m.Question) == 0 {
		return m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented
	}
	asked, got := q.Question[0], m.Question[0]
	return len(m.Question) == 1 && strings.EqualFold(got.Name, asked.Name) && got.Qtype == asked.Qtype && got.Qclass == asked.Qclass
}

// addresses returns the addresses of type qtype in the answer about name, whatever
// aliases led there, and the smallest TTL on the way.
func addresses(m *dns.Msg, name string, qtype uint16) answer {
	a := answer{ttl: maxTTL}
	aliases := map[string]string{}
	for _, rr := range m.Answer {
		h := rr.Header()
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		case *dns.CNAME:
			aliases[strings.ToLower(h.Name)] = strings.ToLower(rr.Target)
		}
		if h.Rrtype != qtype && h.Rrtype != dns.TypeCNAME {
			continue
		}
		a.ttl = max(minTTL, min(a.ttl, seconds(h.Ttl)))
		if addr, ok := netip.AddrFromSlice(ip); ok && !slices.Contains(a.addrs, addr.Unmap()) {
			a.addrs = append(a.addrs, addr.Unmap())
		}
	}
	if len(a.addrs) > 0 {
		return a
	}
	if a.err = errNoAddress; m.Rcode == dns.RcodeNameError {
		a.err = errNoName
	}
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok { // RFC 2308, section 5
			a.ttl = max(minTTL, min(a.ttl, negativeTTL, seconds(soa.Hdr.Ttl), seconds(soa.Minttl)))
			return a
		}
	}
	end := name
	for range maxAliases {
		end = cmp.Or(aliases[end], end)
	}
	if a.err == errNoAddress && end != name {
		a.alias = end
	} else {
		a.ttl = min(a.ttl, negativeTTL)
	}
	return a
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }
