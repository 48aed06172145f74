package egress

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"espalier/policy"
	"espalier/proxy/panics"
)

// A ParentError says that a parent proxy was not reached or did not let a
// request pass. It holds no credentials and nothing that the parent wrote.
type ParentError struct {
	Parent string // host:port
	Status int    // of its answer to CONNECT; 0 where there was none
	// Err is what went wrong where Status is 0, and context.DeadlineExceeded
	// beside a status of 504.
	Err error
}

func (e *ParentError) Error() string {
	switch e.Status {
	case 0:
		return fmt.Sprintf("parent proxy %s: %v", e.Parent, e.Err)
	case http.StatusProxyAuthRequired:
		return fmt.Sprintf("parent proxy %s answers 407: it does not accept the user and password of egress.parent, or none are set", e.Parent)
	}
	return strings.TrimSpace(fmt.Sprintf("parent proxy %s answers %d %s", e.Parent, e.Status, http.StatusText(e.Status)))
}

func (e *ParentError) Unwrap() error { return e.Err }

// fault returns the error of a request to p: ErrLoop if p leads back to this proxy, which
// may have shown meanwhile.
func (p *Parent) fault(status int, err error) *ParentError {
	if p.loops() {
		status, err = 0, ErrLoop
	}
	return &ParentError{Parent: p.String(), Status: status, Err: err}
}

// elsewhere reports whether another parent, or another address of the
// destination, may succeed. Other answers are decisions, and are respected.
func (e *ParentError) elsewhere() bool {
	return e.Status == 0 || e.Status == http.StatusProxyAuthRequired || e.Status == http.StatusTooManyRequests || e.Status >= 500
}

// A Parent is a proxy that requests go through. It is safe for concurrent use.
type Parent struct {
	dialer *Dialer
	target policy.Target
	auth   string // of Proxy-Authorization; empty: none
	token  string // in Via, and in the names of questions

	asking      atomic.Bool  // ask
	connections atomic.Int32 // since the last question

	mu      sync.Mutex
	pause   time.Duration // of the backoff; 0: healthy
	until   time.Time     // end of the backoff
	changed time.Time     // when pause was last set
	loop    time.Time     // until then it is known to lead back to this proxy
}

// String returns host:port, without credentials.
func (p *Parent) String() string { return p.target.String() }

// ProxyAuthorization returns the value of the Proxy-Authorization header that
// the parent wants; empty if it wants none. It must not be shown.
func (p *Parent) ProxyAuthorization() string { return p.auth }

// parseParents parses a comma list of proxy URLs. An error does not repeat any
// of it, for it may hold a password.
func parseParents(list string) ([]*Parent, error) {
	if list == "" {
		return nil, nil
	}
	var parents []*Parent
	for i, part := range strings.Split(list, ",") {
		p := parseParent(strings.TrimSpace(part))
		if p == nil {
			which := ""
			if strings.Contains(list, ",") {
				which = "number " + strconv.Itoa(i+1) + " "
			}
			return nil, errors.New(which + "is no proxy URL (allowed: http://[user:pass@]host:port, several separated by commas)")
		}
		parents = append(parents, p)
	}
	return parents, nil
}

func parseParent(s string) *Parent {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil
	}
	target, err := policy.ParseTarget(u.Host, 0)
	if err != nil {
		return nil
	}
	if u.User == nil {
		return &Parent{target: target}
	}
	user := u.User.Username()
	password, _ := u.User.Password()
	// RFC 7617, section 2: the first colon ends the user, and nobody can send
	// control characters.
	if strings.Contains(user, ":") || strings.ContainsFunc(user+password, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil
	}
	return &Parent{target: target, auth: "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}
}

// Bounds of the backoff of a parent that failed; it doubles while the parent fails.
const (
	firstPause = 2 * time.Second
	maxPause   = time.Minute
)

// admit reports whether p is to be tried in its turn: it is healthy, or its backoff is
// over. Then one request tries it, and the others wait for what that one finds out.
//
// That a parent takes a connection does not mean that it answers, so a plain request
// does not try one in backoff: it is asked in the background instead.
func (p *Parent) admit(now time.Time, plain bool) bool {
	p.mu.Lock()
	healthy := p.pause == 0
	due := !healthy && !now.Before(p.until)
	if due {
		p.until = now.Add(p.pause)
	}
	p.mu.Unlock()
	if !plain {
		return healthy || due
	}
	if due {
		p.ask()
	}
	return healthy && !p.asking.Load()
}

// InBackoff reports whether p is known to fail, or about to be asked.
func (p *Parent) InBackoff() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pause > 0 || p.asking.Load()
}

// failed notes that an attempt that began then failed by p's own fault. If p was found
// to fail since, it says nothing new.
func (p *Parent) failed(began, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause > 0 && began.Before(p.changed) {
		return
	}
	p.pause = min(max(2*p.pause, firstPause), maxPause)
	p.until, p.changed = now.Add(p.pause), now
}

// worked notes that p does what it should.
func (p *Parent) worked() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause > 0 {
		p.pause = 0
		p.dialer.watchNow()
	}
}

// Await is for while an answer to a plain request is awaited of p. If it takes longer
// than Config.ConnectTimeout, p is asked for itself, and is in backoff until it says
// something. What is awaited goes on. stop must be called at the end.
func (p *Parent) Await() (stop func() bool) {
	return time.AfterFunc(p.dialer.timeout, p.ask).Stop
}

// Unanswered is for a plain request of which p has ended a new connection with err, and
// sent no byte. It returns a *ParentError. The destination may be the cause: p is
// asked for itself, and other parents come first meanwhile. It does not block.
func (p *Parent) Unanswered(err error) error {
	if !p.loops() {
		p.ask()
	}
	return p.fault(0, fmt.Errorf("it closed the connection without an answer: %w", err))
}

// ask asks p for itself in the background, unless it is being asked, and notes
// whether it says anything. That it takes a connection proves nothing: a load
// balancer does for proxies that it does not have.
func (p *Parent) ask() {
	if !p.asking.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer p.asking.Store(false)
		began := time.Now()
		// RFC 9110, 9.3.7 and 7.6.2: about the parent, not for a proxy behind it.
		err := p.exchange(context.Background(), "OPTIONS * HTTP/1.1\r\nHost: "+p.String()+"\r\nMax-Forwards: 0\r\n")
		if err != nil {
			p.failed(began, time.Now())
		} else {
			p.worked()
		}
	}()
}

// exchange sends a request to p, and returns nil if it answers anything.
func (p *Parent) exchange(ctx context.Context, request string) (err error) {
	defer panics.Keep(&err)
	ctx, cancel := context.WithTimeout(ctx, p.dialer.timeout)
	defer cancel()
	conn, perr := p.connect(ctx)
	if perr != nil {
		return perr
	}
	defer conn.Close()
	defer interruptAfter(ctx, conn)()
	_, err = conn.Write([]byte(request + "Connection: close\r\n" + p.authorization() + "\r\n"))
	if n, rerr := conn.Read(make([]byte, 1)); n > 0 {
		return nil // it may refuse before it has read everything
	} else if err == nil {
		err = rerr
	}
	return err
}

// authorization returns the line of Proxy-Authorization; empty if p wants none.
func (p *Parent) authorization() string {
	if p.auth == "" {
		return ""
	}
	return "Proxy-Authorization: " + p.auth + "\r\n"
}

// connect connects to p, and notes if it cannot. Its address is the administrator's
// choice, so the guard has no say; but the proxy is not its own parent.
func (p *Parent) connect(ctx context.Context) (*net.TCPConn, *ParentError) {
	d, began := p.dialer, time.Now()
	var machine map[netip.Addr]bool
	listens := d.self.ports[p.target.Port]
	if listens {
		machine = d.self.addresses(true)
	}
	addrs, err := d.resolve(ctx, p.target)
	var to []netip.AddrPort
	if err == nil {
		to, err = d.arrange(nil, addrs, p.target.Port, func(a netip.Addr) error {
			if listens && d.self.is(a, machine) {
				return fmt.Errorf("%s is this proxy's own address; let egress.parent name another proxy", a)
			}
			return nil
		})
	}
	if err == nil {
		var conn net.Conn
		if conn, err = d.race(ctx, to); err == nil {
			if p.connections.Add(1) == watchConnections {
				d.watchNow()
			}
			return conn.(*net.TCPConn), nil
		}
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // else the client has left
		p.failed(began, time.Now())
	}
	return nil, p.fault(0, err)
}

// open asks p on conn for a tunnel to hostport. It leaves on conn what follows
// the answer's head.
func (p *Parent) open(ctx context.Context, conn *net.TCPConn, hostport string) *ParentError {
	stop := interruptAfter(ctx, conn)
	_, err := conn.Write([]byte("CONNECT " + hostport + " HTTP/1.1\r\nHost: " + hostport + "\r\n" + p.viaFields(ctx) + p.authorization() + "\r\n"))
	status := 0
	// A parent may refuse and close before it has read everything.
	if s, rerr := readAnswer(conn); rerr == nil {
		status, err = s, nil
	} else if err == nil {
		err = rerr
	}
	if !stop() { // the deadline is set, or is about to be
		status, err = 0, fmt.Errorf("no answer to CONNECT: %w", ctx.Err())
	}
	switch {
	case err == nil && status/100 == 2:
		return nil
	case status == http.StatusGatewayTimeout:
		err = context.DeadlineExceeded
	}
	return p.fault(status, err)
}

// interruptAfter ends what waits on c when ctx ends, unless stop is called.
func interruptAfter(ctx context.Context, c net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}
