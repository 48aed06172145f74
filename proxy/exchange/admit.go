package exchange

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"espalier/policy"
	"espalier/policy/auth"
	"espalier/proxy/egress"
	"espalier/proxy/limits"
	"espalier/proxy/page"
	"espalier/proxy/refusal"
)

// A Request is what an entry has read of a request, before anything is decided.
type Request struct {
	Door      *policy.Door // that it came by
	Scheme    string       // of the URL, in lower case; empty for a CONNECT
	Authority string       // host and port, as sent; only a CONNECT must have the port
	Path      string       // of the URL, as sent
	Invalid   error        // what makes the URL no destination; nil: it may be one
	Header    Header
	Session   *Session // the intercepted connection that it came on; nil: the proxy was asked
	InLoop    bool     // in an event loop, which must not wait
}

// ErrWait is what Admit returns to an event loop that would have to wait. Nothing is
// counted then, and Admit may be asked again.
var ErrWait = errors.New("the decision may take time")

// Admit decides about a request: its destination, the policy, sign-in, and limits.
// Without an error x.Decision says what to do with it, and its place is counted
// until Finish. A refusal.Refusal is what to tell the client. A second call returns what the
// first did, so that an event loop may hand x on.
func (x *Exchange) Admit(ctx context.Context, r *Request) error {
	if !x.asked {
		x.outcome = x.admit(ctx, r)
		x.asked = x.outcome != ErrWait
	}
	return x.outcome
}

func (x *Exchange) admit(ctx context.Context, r *Request) error {
	x.door = r.Door
	isConnect := x.Record.Method == http.MethodConnect
	if !isConnect { // no person reads the answer to a CONNECT
		x.header = r.Header
	}
	x.State = x.p.State()
	if r.Scheme != "" {
		x.Record.URL = recordURL(r.Scheme, r.Authority, r.Path)
	}
	if err := x.locate(r); err != nil {
		x.conceal(r)
		return err
	}
	if !x.door.Decides(x.Target) {
		x.Deny(RuleTarget, "the proxy takes no such host here")
		return refusal.Name
	}
	kind, decide := limits.Request, x.decide
	switch {
	case r.Session != nil:
		decide = x.decideInside
	case isConnect:
		kind = limits.Tunnel
	}
	err := decide(ctx, r)
	if err != nil && !x.Decision.Page {
		return err
	}
	if full := x.enter(kind, r); full != nil {
		if err != nil { // a CONNECT that is denied: without the page
			return err
		}
		x.Fail(full)
		return refusal.For(full)
	}
	if x.Record.Method == http.MethodTrace {
		// It would show a script what cookies and passwords its browser sends.
		x.Deny(RuleMethod, http.MethodTrace)
		return x.refuseWith(refusal.Method, "Allow", "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, CONNECT")
	}
	return nil
}

// locate finds the destination.
func (x *Exchange) locate(r *Request) error {
	scheme, port := "http", uint16(80)
	switch {
	case r.Session != nil:
		scheme, port = r.Session.Scheme(), r.Session.Target.Port
	case x.Record.Method == http.MethodConnect:
		scheme, port = "", 0
	}
	if r.Scheme != scheme {
		x.Record.Host = withoutUser(r.Authority)
		x.Deny(RuleScheme, "scheme "+r.Scheme)
		return refusal.Scheme
	}
	if err := cmp.Or(x.aim(r.Authority, port), r.Invalid); err != nil {
		x.Deny(RuleTarget, err.Error())
		return refusal.Name
	}
	d := x.State.Dialer
	if !d.HasParent() {
		return nil
	}
	d.OwnQuestion(x.Target.Host) // that came back
	if via := r.Header.Get("via"); via != "" && d.IsLoop(via) {
		x.Fail(fmt.Errorf("the parent proxy sends the request back: %w", egress.ErrLoop))
		return refusal.Loop
	}
	return nil
}

// aim notes where the request wants to go. The record keeps no credentials.
func (x *Exchange) aim(authority string, port uint16) error {
	t, err := policy.ParseTarget(authority, port)
	if err != nil {
		x.Record.Host = withoutUser(authority)
		return err
	}
	x.SetTarget(t)
	return nil
}

// conceal leaves the URL of a request that the policy is not asked about out of its record,
// if the policy would.
func (x *Exchange) conceal(r *Request) {
	t, err := policy.ParseTarget(withoutUser(r.Authority), 80)
	if err == nil && x.State.Policy.Decide(&policy.Request{Target: t, Client: x.Record.Client}).HideURL {
		x.Record.URL = ""
	}
}

// decide asks the policy, and a second time if the first answer is that the user
// must sign in and the request has credentials. Credentials are not looked at
// otherwise: Apple's hosts see and cost none.
func (x *Exchange) decide(ctx context.Context, r *Request) error {
	st := x.State
	ask := policy.Request{Target: x.Target, Client: x.Record.Client, Connect: x.Record.Method == http.MethodConnect, Path: r.Path}
	if x.door.NoCA == policy.Told && x.Record.Method == http.MethodGet && st.Exceptions.WithoutCA(ask.Client) {
		ask.Page = page.Wanted(r.Header.Get("accept"))
	}
	d := st.Policy.Decide(&ask)
	if d.Action != policy.Challenge {
		x.SetDecision(d)
		return refusedBy(d)
	}
	name, password, ok := parseBasic(r.Header.Get("proxy-authorization"))
	if !ok {
		x.SetDecision(d)
		return x.refuseWith(refusal.SignIn, "Proxy-Authenticate", st.Auth.Challenge())
	}
	if r.InLoop {
		return ErrWait
	}
	user, err := st.Auth.SignIn(ctx, ask.Client, name, password)
	if err == nil {
		ask.User, ask.Groups = user.Name, user.Groups
		x.Record.User, x.Groups = user.Name, user.Groups
		d = st.Policy.Decide(&ask)
		x.SetDecision(d)
		return refusedBy(d)
	}
	x.SetDecision(d)
	x.Record.Error = err.Error()
	if errors.Is(err, auth.ErrWrong) {
		return x.refuseWith(refusal.SignIn, "Proxy-Authenticate", st.Auth.Challenge())
	}
	// A 407 would make the device ask its user for a password that does not help now.
	if throttled, ok := errors.AsType[*auth.ThrottledError](err); ok {
		x.Record.Action = policy.Deny
		return x.refuseWith(refusal.Throttled, "Retry-After", strconv.Itoa(int(math.Ceil(throttled.Wait.Seconds()))))
	}
	x.Record.Action = policy.Error
	return x.refuseWith(refusal.NoSignIn, "Retry-After", "5")
}

// decideInside decides about a request in a session. The policy is asked for each,
// since its host may be another than the connection's.
func (x *Exchange) decideInside(_ context.Context, r *Request) error {
	ses := r.Session
	x.Record.User, x.Groups = ses.Record.User, ses.Groups
	d := ses.Decision
	if !ses.Page {
		ask := ses.Ask(x.Target)
		ask.Path = r.Path
		d = x.State.Policy.Decide(ask)
	}
	x.SetDecision(d)
	x.Decision.Page = false
	switch {
	case x.door.Host.Refuses(ses.named(), x.Target):
		if d.Action != policy.Deny {
			x.Deny(RuleMisdirected, fmt.Sprintf("the connection is for %s", ses.Host()))
		}
		return refusal.Misdirected
	case x.Record.Method == http.MethodConnect:
		x.Deny(RuleScheme, "a CONNECT inside an intercepted connection")
		return refusal.Scheme
	case d.Action == policy.Deny:
		return refusedBy(d)
	case d.Action == policy.Challenge:
		// Users sign in for the CONNECT: the client knows of no proxy here.
		x.Deny(d.Rule, "no user has signed in")
		return refusal.Denied
	}
	x.Record.Action = policy.Inspect // also if a reload has exempted the host meanwhile
	if x.Target != ses.Target && d.Dial == x.Target {
		x.Decision.Dial = ses.Decision.Dial // the client has looked its server up by itself
	}
	return nil
}

// enter counts x as one of kind until it is finished.
func (x *Exchange) enter(kind limits.Kind, r *Request) error {
	apple := x.Decision.Match.OK() && r.Session == nil && !x.Decision.Page
	if err := x.p.Limits.Enter(kind, x.Record.Client, apple); err != nil {
		return err
	}
	x.counted = kind
	if kind == limits.Tunnel && !r.InLoop {
		if err := x.p.Limits.Scarce(); err != nil {
			x.release()
			return err
		}
	}
	return nil
}

// refusedBy is the refusal that d is; nil if it lets the request pass.
func refusedBy(d policy.Decision) error {
	switch {
	case d.Action != policy.Deny:
		return nil
	case d.Rule == policy.RuleClients:
		return refusal.Client
	case d.Rule == policy.RulePorts:
		return refusal.Port
	case d.Rule == policy.RuleWithoutCA:
		return refusal.WithoutCA
	}
	return refusal.Denied
}

// parseBasic parses the credentials of a Proxy-Authorization header (RFC 7617).
func parseBasic(header string) (name, password string, ok bool) {
	r := http.Request{Header: http.Header{"Authorization": {strings.Join(strings.Fields(header), " ")}}}
	return r.BasicAuth()
}

// recordURL is what a record keeps of a URL: no query, no fragment, no credentials,
// since these are private.
func recordURL(scheme, authority, path string) string {
	if private := strings.IndexAny(path, "?#"); private >= 0 {
		path = path[:private]
	}
	if path == "" {
		path = "/"
	}
	return scheme + "://" + withoutUser(authority) + path
}

func withoutUser(authority string) string {
	return authority[strings.LastIndexByte(authority, '@')+1:]
}

// refuseWith returns r, with a field in the header of the answer.
func (x *Exchange) refuseWith(r refusal.Refusal, name, value string) error {
	x.answerName, x.answerValue = name, value
	return r
}

// Malformed notes a request that is not valid HTTP because of err, and says how it is
// refused, with status. r has what could be read.
func (x *Exchange) Malformed(r *Request, status int, err error) refusal.Refusal {
	refused, rule := refusal.Malformed, RuleMalformed
	refused.Status = status
	if x.Record.Method == http.MethodConnect { // iOS would go without the proxy after a 400
		refused, rule = refusal.Name, RuleTarget
	} else {
		x.header = r.Header
	}
	if ses := r.Session; ses != nil {
		x.SetTarget(ses.Target)
		x.Record.User = ses.Record.User
	} else {
		_ = x.aim(r.Authority, 80)
	}
	x.Deny(rule, "malformed request: "+err.Error())
	return refused
}
