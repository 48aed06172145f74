package exchange

import (
	"errors"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
	"espalier/proxy/egress"
	"espalier/proxy/limits"
	"espalier/proxy/panics"
	"espalier/proxy/refusal"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
)

// Rules in records of requests that no rule of the policy refused.
const (
	RuleTarget      = "invalid-target"    // the destination is not valid
	RuleMalformed   = "malformed-request" // not valid HTTP
	RuleMethod      = "method"            // TRACE
	RuleScheme      = "scheme"            // of another URL than http
	RuleMisdirected = "misdirected"       // inside TLS, for another host than the connection
	RuleGuard       = "address-guard"     // the destination's address is not for clients
	RuleTLS         = "invalid-tls"       // a tunnel begins with TLS that cannot be read
)

// ErrClientClosed is the error in records of requests that the client gave up.
var ErrClientClosed = errors.New("client_closed")

// An Exchange is the account of one request, from its first byte to its record. It
// is begun, admitted or refused, and finished exactly once, also when it is handed on.
// One goroutine has it at a time, but for AddUp and AddDown.
type Exchange struct {
	// Tunnel has the Record, whose Time is the beginning until Finish, which sets Up, Down
	// and Duration too.
	accesslog.Tunnel
	*decided

	p        *Pipeline
	service  *traffic.Service
	up, down atomic.Int64
	counted  limits.Kind
	finished bool
}

// decided is what an Exchange needs until it is finished, or is a tunnel.
type decided struct {
	Target   policy.Target
	State    *State          // that decided
	Decision policy.Decision // set once it is admitted
	Groups   []string        // of the user
	Name     policy.Target   // that TLS in a CONNECT named in place of Target; zero: nothing else

	door                    *policy.Door
	judged                  bool   // what a tunnel's client says first
	asked                   bool   // Admit was, and
	outcome                 error  // this is its answer
	header                  Header // of the request, for pages; nil: none
	answerName, answerValue string // of a field of a refusal; empty: none
}

// forgotten takes the place of what tunnels do not need. It is not modified.
var forgotten decided

// Header is the header of a request. Get returns the values of a field, by its name
// in lower case, joined by commas; "" if there is none.
type Header interface{ Get(name string) string }

// SetTarget notes where the request wants to go.
func (x *Exchange) SetTarget(t policy.Target) {
	x.Target = t
	x.Record.Host, x.Record.Port = t.Host, t.Port
}

// SetDecision notes what the policy said.
func (x *Exchange) SetDecision(d policy.Decision) {
	x.Decision = d
	x.service = x.p.traffic.Service(d.Service())
	x.Change(func() {
		x.Record.Service, x.Record.Action, x.Record.Rule = d.Service(), d.Action, d.Rule
		if d.Action == policy.Deny && d.List != "" {
			x.Record.Error = d.ListState()
		}
		if d.HideURL {
			x.Record.URL = ""
		}
	})
}

// Deny notes a refusal that the proxy itself made, beside the policy.
func (x *Exchange) Deny(rule, why string) {
	x.Change(func() { x.Record.Action, x.Record.Rule, x.Record.Error = policy.Deny, rule, why })
}

// Fail notes that a permitted request did not succeed: the address guard refused it,
// or something went wrong on the way.
func (x *Exchange) Fail(err error) {
	if errors.Is(err, ErrClientClosed) {
		x.Change(func() { x.Record.Error = ErrClientClosed.Error() }) // not a failure
		return
	}
	if forbidden := (*egress.ForbiddenError)(nil); errors.As(err, &forbidden) {
		x.Deny(RuleGuard, err.Error())
		return
	}
	if p, ok := errors.AsType[*panics.Error](err); ok {
		x.p.panics.Add(1)
		x.p.ops.Error("panic on the way to an origin", zap.Any("panic", p.Fault), zap.ByteString("stack", p.Stack))
	}
	if e := limits.AsError(err); e != nil {
		x.p.Limits.TurnedAway(e.Reason)
	}
	x.Change(func() { x.Record.Action, x.Record.Error = policy.Error, err.Error() })
}

// Refuse says how the client is told of err, which is one of Admit or of the way to the
// origin, and counts that.
func (x *Exchange) Refuse(err error) (r refusal.Refusal, h http.Header, body string) {
	r = refusal.For(err)
	x.p.refusals.WithLabelValues(r.Type).Inc()
	n := refusal.Notice{Host: x.Target.Host, Reference: x.Record.ID.String()}
	if st := x.p.State(); st != nil {
		n.Contact = st.Contact
	}
	if st := x.p.State(); r == refusal.WithoutCA && st != nil {
		n.Setup = st.SetupURL
	}
	if x.Record.Action == policy.Deny {
		n.Rule = x.Record.Rule
		if x.Decision.List != "" {
			n.Rule += " (" + x.Decision.List + ")"
		}
	}
	if x.header != nil {
		n.Accept, n.AcceptLanguage = x.header.Get("accept"), x.header.Get("accept-language")
	}
	h, body = r.Render(n)
	if x.answerName != "" {
		h.Set(x.answerName, x.answerValue)
	}
	return r, h, body
}

// Service is what bytes are counted for. It is nil before there is a decision.
func (x *Exchange) Service() *traffic.Service { return x.service }

// AddUp counts n bytes of payload from the client, AddDown to it. They may be called
// from any goroutine, until Finish.
func (x *Exchange) AddUp(n int64)   { x.up.Add(n); x.service.AddUp(n) }
func (x *Exchange) AddDown(n int64) { x.down.Add(n); x.service.AddDown(n) }

// Finished reports whether the record is written.
func (x *Exchange) Finished() bool { return x.finished }

// release gives back the place that Admit took.
func (x *Exchange) release() {
	if x.counted != limits.None {
		x.p.Limits.Leave(x.counted, x.Record.Client)
		x.counted = limits.None
	}
}

// Finish writes the record, with the status that the client was told, 0 for none,
// and counts the request. Further calls do nothing.
func (x *Exchange) Finish(status int) {
	if x.finished {
		return
	}
	x.finished = true
	x.release()
	x.Settle()
	rec := &x.Record
	rec.Up, rec.Down = x.up.Load(), x.down.Load()
	began := rec.Time
	rec.Time = time.Now()
	rec.Duration = rec.Time.Sub(began)
	rec.Status = status
	if x.service == nil { // there was no decision
		rec.Service = catalog.Other
		x.service = x.p.traffic.Service(rec.Service)
	}
	x.service.Request(rec.Action)
	x.service.Recorded(rec.Up, rec.Down)
	if rec.Connect > 0 {
		x.p.traffic.Connected(rec.Connect)
	}
	x.p.log.WriteTunnel(&x.Tunnel)
}

// Opened notes that x is an open tunnel or intercepted connection. Record must be
// modified by Change alone from then until Settle: if the process is killed, the next one
// writes it. Further calls do nothing.
func (x *Exchange) Opened() {
	if !x.Noted() {
		x.Record.Status, x.Record.Up, x.Record.Down = x.openStatus(), x.up.Load(), x.down.Load()
		x.p.log.OpenTunnel(&x.Tunnel)
	}
}

// openStatus is what the client of a tunnel is told that is open.
func (x *Exchange) openStatus() int {
	if x.Record.Method != http.MethodConnect {
		return http.StatusSwitchingProtocols
	}
	return http.StatusOK
}

// TunnelOpened implements tunnel.Owner.
func (x *Exchange) TunnelOpened(connect time.Duration, to netip.AddrPort) {
	if to.IsValid() {
		x.Record.Connect, x.Record.Upstream = connect, to
	}
	x.Opened()
}

// TunnelMoved implements tunnel.Owner.
func (x *Exchange) TunnelMoved(up, down int64) { x.Moved(x.up.Load()+up, x.down.Load()+down) }

// Drop ends the account without a record: nothing was asked of a destination.
func (x *Exchange) Drop() {
	x.finished = true
	x.release()
}

// TunnelDone implements tunnel.Owner. The engine has counted the bytes for the
// service.
func (x *Exchange) TunnelDone(stats tunnel.Stats) {
	x.Settle()
	x.up.Add(stats.Up)
	x.down.Add(stats.Down)
	switch e, ok := errors.AsType[*tunnel.Error](stats.Err); {
	case ok && e.Client && e.Left():
		x.Record.Error = ErrClientClosed.Error()
	case errors.Is(stats.Err, tunnel.ErrOpening):
		x.Deny(RuleTLS, stats.Err.Error())
	case stats.Err != nil:
		x.Record.Error = stats.Err.Error()
	}
	status := x.openStatus()
	if stats.Unopened {
		x.Record.Connect, status = stats.Connect, 0
	}
	x.Finish(status)
}
