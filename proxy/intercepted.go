package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"espalier/policy"
)

// ruleMisdirected is the rule in records of intercepted requests that name
// another host than their connection was opened for.
const ruleMisdirected = "misdirected"

var refuseMisdirected = refusal{421, "http_request_error", "This connection was opened for another destination."}

type sessionKey struct{}

// keepSession is http.Server.ConnContext.
func keepSession(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(keepConn(ctx, c), sessionKey{}, sessionOf(c))
}

// sessionOf is the session that c is, or wraps.
func sessionOf(c net.Conn) *session {
	for {
		if ses, ok := c.(*session); ok {
			return ses
		}
		c = c.(interface{ NetConn() net.Conn }).NetConn()
	}
}

// serve handles a request inside a session.
func (i *interceptor) serve(w http.ResponseWriter, r *http.Request) {
	s := i.s
	s.handlers.enter()
	defer s.handlers.leave()
	var x *exchange
	defer func() {
		if fault := recover(); fault != nil {
			s.panicked(x, fault)
			panic(http.ErrAbortHandler)
		}
	}()
	handled(r)
	ses := r.Context().Value(sessionKey{}).(*session)
	ses.arrive()
	ses.accepted()
	if r.ProtoMajor == 2 {
		m := s.multiplexed(w, r)
		defer m.end()
		w = m
	}
	if s.Draining() {
		w.Header().Set("Connection", "close")
	}
	x = s.begin(ses.x.rec.Client, r.Method, r.UserAgent())
	x.rec.User = ses.x.rec.User
	x.asked = r.Header
	scheme := "https"
	if ses.cert == nil {
		scheme = "http"
	}
	if r.Host == "" { // HTTP/1.0
		r.Host = ses.host()
	}
	x.rec.URL = recordURL(scheme, r.Host, r.URL.EscapedPath())
	target, err := policy.ParseTarget(r.Host, ses.x.target.Port)
	if err != nil {
		x.rec.Host = r.Host
		x.refuse(ruleTarget, err.Error())
		s.answer(w, x, refuseName)
		return
	}
	x.to(target)
	if r.ProtoMajor == 2 && r.Method != http.MethodConnect && !isPath(r.RequestURI) {
		x.refuse(ruleMalformed, "malformed request: its target is no path")
		s.answer(w, x, refuseMalformed)
		return
	}
	st := s.state.Load()
	d := ses.d
	if d.Page {
		w.Header().Set("Connection", "close") // the next CONNECT may be decided otherwise
	} else {
		d = st.Policy.Decide(ses.ask(target))
	}
	x.decided(d)
	switch {
	case target != ses.x.target && target != ses.name:
		if d.Action != policy.Deny {
			x.refuse(ruleMisdirected, fmt.Sprintf("the connection is for %s", ses.host()))
		}
		w.Header().Set("Connection", "close")
		s.answer(w, x, refuseMisdirected)
		return
	case r.Method == http.MethodConnect || r.URL.IsAbs() && r.URL.Scheme != scheme:
		x.refuse("scheme", "a proxy's request inside an intercepted connection")
		s.answer(w, x, refuseScheme)
		return
	case d.Action == policy.Deny:
		s.answer(w, x, *refusalOf(d))
		return
	case d.Action == policy.Challenge:
		// To sign in is for the CONNECT: nobody knows a proxy here.
		x.refuse(d.Rule, "nobody has signed in")
		s.answer(w, x, refuseDenied)
		return
	}
	x.rec.Action = policy.Inspect // also where a reload has exempted the host meanwhile
	if target != ses.x.target && d.Dial == target {
		// The client has looked its server up by itself.
		d.Dial = ses.d.Dial
	}
	if err := s.limits.admit(x, aRequest, false); err != nil {
		s.fail(w, x, err)
		return
	}
	r.URL.Scheme = scheme
	s.forward.serve(w, r, x, st, &d)
}
