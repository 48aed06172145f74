package http1

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"

	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/tunnel"
)

// fail refuses a request that was admitted and failed on the way.
func (c *conn) fail(r *request, err error) outcome {
	if c.alive().Err() != nil {
		err = tunnel.ErrShutdown
	}
	c.x.Fail(err)
	return c.refuse(r, err)
}

// abandon finishes a request whose client does not get an answer.
func (c *conn) abandon(err error, end outcome) outcome {
	c.x.Fail(err)
	c.x.Finish(0)
	return end
}

// refuse tells the client that its request is refused, and finishes it.
func (c *conn) refuse(r *request, err error) outcome {
	refused, h, body := c.x.Refuse(err)
	// Bytes behind a refused CONNECT are meant for the destination, and the rest of a body
	// is not a request. A limit needs room.
	keep := r.err == nil && !r.broken && c.mayDiscard(r) && !r.is(http.MethodConnect) && !refused.IsLimit() &&
		refused.Status != http.StatusMisdirectedRequest && c.x.Record.Rule != exchange.RuleTarget &&
		!(c.session != nil && c.session.Page)
	c.x.Finish(refused.Status) // its place is free when the client knows
	end := c.send(r, refused.Status, h, body, keep)
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
	c.enterRoom()
	defer c.leaveRoom()
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
	keep = keep && !r.head.Close && !c.cfg.Conns.Draining()
	if option := r.connectionOption(keep); option != "" {
		h.Set("Connection", option)
	}
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 " + strconv.Itoa(status) + " " + http.StatusText(status) + "\r\n")
	_ = h.Write(&b) // a bytes.Buffer takes everything
	b.WriteString("\r\n")
	if !r.is(http.MethodHead) {
		b.WriteString(body)
	}
	switch err := c.Send(b.Bytes(), c.cfg.Times.Stall); {
	case err != nil:
		return closing // a client that has left needs no answer
	case keep:
		return staying
	case r.head.Length == 0 && !r.is(http.MethodConnect) && r.err == nil:
		return closing // nothing more of it comes
	}
	return lingering
}

// connectionOption is what Connection says to the client; "": the field is left out.
func (r *request) connectionOption(keep bool) string {
	switch {
	case !keep:
		return "close"
	case r.head.Minor == 0:
		return "keep-alive"
	}
	return ""
}

// malformed refuses a request that is not valid HTTP. There is a record of it unless
// it is noise on a new connection.
func (c *conn) malformed(r *request) outcome {
	status := http.StatusBadRequest
	if e, ok := errors.AsType[*head.Error](r.err); ok {
		status = e.Status
	}
	refused := c.x.Malformed(&r.ask, status, r.err)
	if r.noise {
		_, h, body := c.x.Refuse(refused)
		c.x.Drop()
		return c.send(r, refused.Status, h, body, false)
	}
	return c.refuse(r, refused)
}
