package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// A resolver asks for the addresses of a name. The name exists without
// addresses where the list is empty; ttl is valid then too.
type resolver interface {
	lookup(ctx context.Context, name string) (addrs []netip.Addr, ttl time.Duration, err error)
}

const (
	systemTTL = 30 * time.Second // the system's resolver tells no TTL
	minTTL    = 1 * time.Second
	maxTTL    = time.Hour
	// negativeTTL bounds how long a failure is believed (RFC 2308 allows more,
	// but an administrator who mends a zone should not have to wait).
	negativeTTL = 10 * time.Second
)

// errNotFound says that a name has no address.
var errNotFound = errors.New("no such name, or it has no address")

// systemResolver asks the way every other program on the machine does.
type systemResolver struct{}

func (systemResolver) lookup(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	// The final dot keeps the search domains of resolv.conf out.
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name+".")
	if dnsErr := (*net.DNSError)(nil); errors.As(err, &dnsErr) && dnsErr.IsNotFound {
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

// dnsResolver asks the servers of egress.dns, over UDP and, where an answer was
// cut, over TCP. The next server is asked when one does not answer or fails.
type dnsResolver struct {
	servers []string
	timeout time.Duration // for one question to one server
}

func (r *dnsResolver) lookup(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	type answer struct {
		addrs []netip.Addr
		ttl   time.Duration
		err   error
	}
	ask := func(qtype uint16, out chan<- answer) {
		addrs, ttl, err := r.ask(ctx, name, qtype)
		out <- answer{addrs, ttl, err}
	}
	c4, c6 := make(chan answer, 1), make(chan answer, 1)
	go ask(dns.TypeA, c4)
	go ask(dns.TypeAAAA, c6)
	a4, a6 := <-c4, <-c6
	addrs := append(a4.addrs, a6.addrs...)
	if len(addrs) > 0 {
		ttl := maxTTL
		for _, a := range []answer{a4, a6} {
			if len(a.addrs) > 0 {
				ttl = min(ttl, a.ttl)
			} else if a.err != nil && !errors.Is(a.err, errNotFound) {
				ttl = min(ttl, negativeTTL) // half an answer: ask again soon
			}
		}
		return addrs, max(ttl, minTTL), nil
	}
	for _, a := range []answer{a4, a6} {
		if a.err != nil && !errors.Is(a.err, errNotFound) {
			return nil, 0, a.err
		}
	}
	return nil, negativeTTL, errNotFound
}

// ask puts one question to the servers in turn.
func (r *dnsResolver) ask(ctx context.Context, name string, qtype uint16) ([]netip.Addr, time.Duration, error) {
	q := new(dns.Msg)
	q.SetQuestion(name+".", qtype)
	q.SetEdns0(1232, false)
	var last error
	for _, server := range r.servers {
		m, err := r.exchange(ctx, q, server)
		switch {
		case err != nil:
			last = fmt.Errorf("name server %s: %w", server, err)
		case m.Rcode == dns.RcodeNameError:
			return nil, negativeTTL, errNotFound
		case m.Rcode != dns.RcodeSuccess:
			last = fmt.Errorf("name server %s: answers %s", server, dns.RcodeToString[m.Rcode])
		default:
			return addresses(m)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, 0, last
}

func (r *dnsResolver) exchange(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	q = q.Copy()
	q.Id = dns.Id()
	udp := dns.Client{Net: "udp", Timeout: r.timeout}
	m, _, err := udp.ExchangeContext(ctx, q, server)
	if err == nil && m.Truncated {
		tcp := dns.Client{Net: "tcp", Timeout: r.timeout}
		m, _, err = tcp.ExchangeContext(ctx, q, server)
	}
	if err == nil && (len(m.Question) != 1 || m.Question[0] != q.Question[0]) {
		err = errors.New("answers another question")
	}
	return m, err
}

// addresses returns the addresses of an answer, whatever CNAMEs led there, and
// the smallest TTL on the way.
func addresses(m *dns.Msg) ([]netip.Addr, time.Duration, error) {
	var addrs []netip.Addr
	ttl := maxTTL
	for _, rr := range m.Answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		case *dns.CNAME:
		default:
			continue
		}
		ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		if a, ok := netip.AddrFromSlice(ip); ok && !slices.Contains(addrs, a.Unmap()) {
			addrs = append(addrs, a.Unmap())
		}
	}
	if len(addrs) == 0 {
		return nil, negativeTTL, errNotFound
	}
	return addrs, max(ttl, minTTL), nil
}
