package egress

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"espalier/policy"
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

// elsewhere reports whether another parent, or another address of the
// destination, may succeed. Other answers are decisions, and are respected.
func (e *ParentError) elsewhere() bool {
	return e.Status == 0 || e.Status == http.StatusProxyAuthRequired || e.Status == http.StatusTooManyRequests || e.Status >= 500
}

// A Parent is a proxy that requests go through.
type Parent struct {
	target policy.Target
	url    *url.URL        // with credentials
	auth   string          // of Proxy-Authorization; empty: none
	token  string          // in Via, and in the names of questions
	watch  chan<- struct{} // lets Watch ask now
	asking atomic.Bool

	connections atomic.Int32 // since the last question

	mu      sync.Mutex
	pause   time.Duration // 0: healthy
	until   time.Time     // it rests, while pause is not 0
	changed time.Time     // when pause was last set
	loop    time.Time     // until then it is known to lead back to this proxy
}

// String returns host:port, without credentials.
func (p *Parent) String() string { return p.target.String() }

// ProxyAuthorization returns the value of the Proxy-Authorization header that
// the parent wants; empty where it wants none. It must not be shown.
func (p *Parent) ProxyAuthorization() string { return p.auth }

// parseParents parses a comma list of proxy URLs. An error does not repeat any
// of it, for it may hold a password.
func parseParents(list string) ([]*Parent, error) {
	if list == "" {
		return nil, nil
	}
	var parents []*Parent
	parts := strings.Split(list, ",")
	for i, part := range parts {
		p := parseParent(strings.TrimSpace(part))
		if p == nil {
			which := ""
			if len(parts) > 1 {
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
	p := &Parent{target: target, url: &url.URL{Scheme: "http", Host: target.String(), User: u.User}}
	if u.User == nil {
		return p
	}
	user := u.User.Username()
	password, _ := u.User.Password()
	// RFC 7617, section 2: the first colon ends the user, and nobody can send
	// control characters.
	if strings.Contains(user, ":") || strings.ContainsFunc(user+password, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil
	}
	p.auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	return p
}

// How long a parent that failed is left alone; the pause doubles while it fails.
const (
	firstPause = 2 * time.Second
	maxPause   = time.Minute
)

// admit reports whether p is to be tried in its turn. When its pause is over,
// one request tries it, and the others wait for what that one finds out.
func (p *Parent) admit(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause == 0 {
		return true
	}
	if now.Before(p.until) {
		return false
	}
	p.until = now.Add(p.pause)
	return true
}

// Rests reports whether p is known to be ill, or about to be asked.
func (p *Parent) Rests() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pause > 0 || p.asking.Load()
}

// failed notes that an attempt that began then failed by p's own fault.
func (p *Parent) failed(began, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause > 0 && began.Before(p.changed) {
		return // it began before p was known to be ill, and says nothing new
	}
	p.pause = min(max(2*p.pause, firstPause), maxPause)
	p.until, p.changed = now.Add(p.pause), now
}

// worked notes that p does what it should.
func (p *Parent) worked() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause == 0 {
		return
	}
	p.pause = 0
	p.hurryWatch()
}
