package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
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
	// negativeTTL bounds how long a failure is believed (RFC 2308 allows more,
	// but an administrator who mends a zone should not have to wait).
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

// dnsResolver asks the servers of egress.dns, over UDP and, where an answer was
// cut, over TCP. The next server is asked when one does not answer or fails,
// and all of them once more where none had an answer: a datagram may be lost.
type dnsResolver struct {
	servers []string
	timeout time.Duration // for one question to one server
}

const rounds = 2

// questionTimeout is how long one server may take, so that all rounds fit into
// the time that a client waits.
func questionTimeout(total time.Duration, servers int) time.Duration {
	return min(max(total/time.Duration(rounds*servers), 100*time.Millisecond), 2*time.Second)
}

// resolutionDelay is how long IPv4 addresses wait for an IPv6 answer (RFC 8305,
// section 3): some name servers drop questions for IPv6.
const resolutionDelay = 50 * time.Millisecond

// errLate takes the place of an answer that was not waited for.
var errLate = errors.New("no answer yet")

type answer struct {
	addrs []netip.Addr
	ttl   time.Duration
	err   error
}

func (r *dnsResolver) lookup(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := func(qtype uint16) <-chan answer {
		out := make(chan answer, 1)
		go func() { out <- r.ask(ctx, name, qtype) }()
		return out
	}
	c4, c6 := start(dns.TypeA), start(dns.TypeAAAA)
	a4, a6 := answer{err: errLate}, answer{err: errLate}
	select {
	case a6 = <-c6:
		a4 = <-c4
	case a4 = <-c4:
		var enough <-chan time.Time
		if len(a4.addrs) > 0 {
			enough = time.After(resolutionDelay)
		}
		select {
		case a6 = <-c6:
		case <-enough:
		}
	}
	if len(a4.addrs)+len(a6.addrs) > 0 {
		ttl := maxTTL
		for _, a := range []answer{a4, a6} {
			if a.err == nil {
				ttl = min(ttl, a.ttl)
			} else if !errors.Is(a.err, errNotFound) {
				ttl = min(ttl, negativeTTL) // half an answer: ask again soon
			}
		}
		return append(a4.addrs, a6.addrs...), ttl, nil
	}
	for _, a := range []answer{a4, a6} {
		if !errors.Is(a.err, errNotFound) {
			return nil, 0, a.err
		}
	}
	return nil, min(a4.ttl, a6.ttl), a4.err
}

// ask puts one question to the servers in turn.
func (r *dnsResolver) ask(ctx context.Context, name string, qtype uint16) (a answer) {
	defer kept(&a.err)
	q := new(dns.Msg)
	q.SetQuestion(name+".", qtype)
	q.SetEdns0(1232, false)
	var last error
	for range rounds {
		for _, server := range r.servers {
			m, err := r.exchange(ctx, q, server)
			switch {
			case err != nil:
				last = fmt.Errorf("name server %s: %w", server, err)
			case m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError:
				return addresses(m, qtype)
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

// exchange puts q to server, over TCP where the answer does not fit a datagram.
func (r *dnsResolver) exchange(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	m, err := r.exchangeOver(ctx, "udp", q, server)
	if m != nil && m.Truncated {
		m, err = r.exchangeOver(ctx, "tcp", q, server)
	}
	if err == nil && (!m.Response || len(m.Question) != 1 || m.Question[0] != q.Question[0]) {
		err = errors.New("answers another question")
	}
	return m, err
}

func (r *dnsResolver) exchangeOver(ctx context.Context, network string, q *dns.Msg, server string) (*dns.Msg, error) {
	q = q.Copy()
	q.Id = dns.Id()
	client := dns.Client{Net: network, Timeout: r.timeout}
	conn, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// The client minds the deadline of ctx, but not its end.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	m, _, err := client.ExchangeWithConnContext(ctx, q, conn)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // not that the connection was closed
	}
	return m, err
}

// addresses returns the addresses of type qtype in an answer, whatever CNAMEs
// led there, and the smallest TTL on the way.
func addresses(m *dns.Msg, qtype uint16) answer {
	a := answer{ttl: maxTTL}
	for _, rr := range m.Answer {
		if t := rr.Header().Rrtype; t != qtype && t != dns.TypeCNAME {
			continue
		}
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		a.ttl = min(a.ttl, seconds(rr.Header().Ttl))
		if addr, ok := netip.AddrFromSlice(ip); ok && !slices.Contains(a.addrs, addr.Unmap()) {
			a.addrs = append(a.addrs, addr.Unmap())
		}
	}
	if len(a.addrs) == 0 {
		a.ttl, a.err = min(a.ttl, negativeTTL), errNoAddress
		if m.Rcode == dns.RcodeNameError {
			a.err = errNoName
		}
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok { // RFC 2308, section 5
				a.ttl = min(a.ttl, seconds(soa.Hdr.Ttl), seconds(soa.Minttl))
			}
		}
	}
	a.ttl = max(a.ttl, minTTL)
	return a
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }
