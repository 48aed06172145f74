package proxy

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
	"espalier/proxy/egress"
	"espalier/proxy/tunnel"
)

// An exchange is one request on its way from the decision to its record. Every
// exchange that begin returns must be finished exactly once.
type exchange struct {
	s      *Server
	start  time.Time
	rec    accesslog.Record
	target policy.Target
	asked  http.Header // the request's, where a person may read the answer; nil: nobody does
	groups []string    // of the user
	hidden bool        // the record does not say the URL

	finished bool

	counted admitted // by limits, until release
}

// begin starts the account of a request.
func (s *Server) begin(client netip.Addr, method, agent string) *exchange {
	return &exchange{s: s, start: time.Now(), rec: accesslog.Record{
		ID: accesslog.NextID(), Client: client, Method: method, Agent: agent,
	}}
}

// to notes where the request wants to go. It takes the question whether a parent
// leads back here for what it is.
func (x *exchange) to(t policy.Target) {
	if st := x.s.state.Load(); st != nil {
		st.Dialer.OwnQuestion(t.Host)
	}
	x.target = t
	x.rec.Host, x.rec.Port = t.Host, t.Port
}

// decided notes what the policy said.
func (x *exchange) decided(d policy.Decision) {
	x.rec.Service, x.rec.Action, x.rec.Rule = d.Service(), d.Action, d.Rule
	x.hidden = d.HideURL
}

// refuse notes a refusal that the proxy itself made, below the policy.
func (x *exchange) refuse(rule, why string) {
	x.rec.Action, x.rec.Rule, x.rec.Error = policy.Deny, rule, why
}

// failed notes that a permitted request did not succeed: the address guard
// refused it, or something went wrong on the way.
func (x *exchange) failed(err error) {
	if forbidden := (*egress.ForbiddenError)(nil); errors.As(err, &forbidden) {
		x.refuse(ruleGuard, err.Error())
		return
	}
	if p, ok := errors.AsType[*egress.PanicError](err); ok {
		x.s.panics.Add(1)
		x.s.ops.Error("panic on the way to a destination", zap.Any("panic", p.Fault), zap.ByteString("stack", p.Stack))
	}
	if e := limited(err); e != nil {
		x.s.limits.turnedAway(e.reason)
	}
	x.rec.Action, x.rec.Error = policy.Error, err.Error()
}

// finish writes the record and counts the request. A request that ends before
// its service is known counts as other.
func (x *exchange) finish(status int) {
	x.finished = true
	x.release()
	x.rec.Time = time.Now()
	x.rec.Duration = x.rec.Time.Sub(x.start)
	x.rec.Status = status
	if x.rec.Service == "" {
		x.rec.Service = catalog.Other
	}
	if x.hidden {
		x.rec.URL = ""
	}
	service := x.s.traffic.Service(x.rec.Service)
	service.Request(x.rec.Action)
	service.Recorded(x.rec.Up, x.rec.Down)
	if x.rec.Connect > 0 {
		x.s.traffic.Connected(x.rec.Connect)
	}
	x.s.log.Write(&x.rec)
}

// TunnelDone implements tunnel.Owner.
func (x *exchange) TunnelDone(stats tunnel.Stats) {
	x.rec.Up, x.rec.Down = stats.Up, stats.Down
	if stats.Connect != 0 {
		x.rec.Connect = stats.Connect
	}
	if stats.Upstream.IsValid() {
		x.rec.Upstream = stats.Upstream
	}
	if stats.Err != nil {
		x.rec.Error = stats.Err.Error()
	}
	if stats.Unopened {
		x.finish(0)
		return
	}
	x.finish(http.StatusOK)
}

// recordURL is what a record keeps of a URL: no query, no fragment, no
// credentials, for these hold what is nobody's business.
func recordURL(scheme, host, path string) string {
	if path == "" {
		path = "/"
	}
	var b strings.Builder
	b.Grow(len(scheme) + 3 + len(host) + len(path))
	b.WriteString(scheme)
	b.WriteString("://")
	b.WriteString(host)
	b.WriteString(path)
	return b.String()
}
