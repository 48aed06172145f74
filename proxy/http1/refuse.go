package http1

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"espalier/policy"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/refusal"
)

// fail refuses a request that was admitted and failed on the way.
func (c *conn) fail(r *request, err error) outcome {
	c.x.Fail(err)
	return c.refuse(r, &exchange.Refused{Refusal: refusal.For(err)})
}

// refuse tells the client that its request is refused, and finishes it.
func (c *conn) refuse(r *request, err error) outcome {
	refused, ok := errors.AsType[*exchange.Refused](err)
	if !ok {
		refused = &exchange.Refused{Refusal: refusal.For(err)}
	}
	h, body := c.x.Render(refused.Refusal)
	if refused.Field.Name != "" {
		h.Set(refused.Field.Name, refused.Field.Value)
	}
	// What follows a refused CONNECT is meant for another, and what is left of a body is
	// no request. A limit wants room.
	keep := r.err == nil && !r.broken && c.mayDiscard(r) && string(r.head.Method) != http.MethodConnect && !refused.IsLimit() &&
		refused.Status != http.StatusMisdirectedRequest && c.x.Record.Rule != exchange.RuleTarget && !(c.session != nil && c.session.Page)
	end := c.send(r, refused.Status, h, body, keep)
	c.x.Finish(refused.Status)
	if end == staying && !c.discard(r) {
		return closing
	}
	return end
}

// maxDiscard bounds the body of a refused request that is read so that the connection may
// stay.
const maxDiscard = 64 << 10

// mayDiscard reports whether the body, if there is one, is sure to come and short. Of
// chunks that is not known, and a client that expects 100 may not send it.
func (c *conn) mayDiscard(r *request) bool {
	return r.head.Length >= 0 && r.head.Length <= maxDiscard && !r.head.Expect
}

// discard reads the body of a refused request. What an attempt has sent of it was read
// already.
func (c *conn) discard(r *request) bool {
	for left := r.head.Length - r.read; left > 0; {
		if len(c.Unread()) == 0 && c.More(c.cfg.Times.Stall) != nil {
			return false
		}
		n := min(left, int64(len(c.Unread())))
		c.Use(int(n))
		left -= n
	}
	return true
}

// empty answers without a body.
func (c *conn) empty(r *request, status int) outcome {
	return c.send(r, status, http.Header{}, "", r.head.Length == 0)
}

// send sends an answer of the proxy's own. The connection stays if keep is set, the
// client wants it to, and nothing else speaks against it.
func (c *conn) send(r *request, status int, h http.Header, body string, keep bool) outcome {
	h.Set("Content-Length", strconv.Itoa(len(body)))
	keep = keep && !r.head.Close && !c.isDraining()
	if !keep {
		h.Set("Connection", "close")
	} else if r.head.Minor == 0 {
		h.Set("Connection", "keep-alive")
	}
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 " + strconv.Itoa(status) + " " + http.StatusText(status) + "\r\n")
	_ = h.Write(&b) // a bytes.Buffer takes everything
	b.WriteString("\r\n")
	if string(r.head.Method) != http.MethodHead {
		b.WriteString(body)
	}
	switch err := c.Send(b.Bytes(), c.cfg.Times.Stall); {
	case err != nil:
		return closing // a client that has left needs no answer
	case keep:
		return staying
	case r.head.Length == 0 && string(r.head.Method) != http.MethodConnect && r.err == nil:
		return closing // nothing more of it comes
	}
	return lingering
}

// malformed refuses a request that is not valid HTTP. There is a record of it unless
// it is noise on a new connection.
func (c *conn) malformed(r *request) outcome {
	x := c.x
	refused, rule := refusal.Malformed, exchange.RuleMalformed
	if e, ok := errors.AsType[*head.Error](r.err); ok {
		refused.Status = e.Status
	}
	authority := string(r.head.Host)
	switch t, absolute := parseTarget(r.head.Target); {
	case string(r.head.Method) == http.MethodConnect:
		// iOS would go without the proxy after a 400.
		refused, rule = refusal.Name, exchange.RuleTarget
		authority = string(r.head.Target)
	case absolute:
		authority = t.authority
	}
	if ses := c.session; ses != nil {
		ses.Accepted()
		x.SetTarget(ses.Target)
		x.Record.User = ses.Record.User
	} else if target, err := policy.ParseTarget(authority, 80); err == nil {
		x.SetTarget(target)
	} else {
		x.Record.Host = authority
	}
	if rule == exchange.RuleMalformed {
		x.SetHeader(r.head.Fields)
	}
	x.Deny(rule, "malformed request: "+r.err.Error())
	if r.noise {
		h, body := x.Render(refused)
		x.Drop()
		return c.send(r, refused.Status, h, body, false)
	}
	return c.refuse(r, &exchange.Refused{Refusal: refused})
}

// addrPort is the remote address of a TCP connection; zero for others.
func addrPort(c interface{ RemoteAddr() net.Addr }) netip.AddrPort {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
