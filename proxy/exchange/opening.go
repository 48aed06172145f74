package exchange

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/inspect"
	"espalier/proxy/tunnel"
)

// TLS alerts (RFC 8446, 6.2) that a client is told before its tunnel is closed.
var (
	alertDecode = []byte{21, 3, 3, 0, 2, 2, 50}  // decode_error
	alertAccess = []byte{21, 3, 3, 0, 2, 2, 49}  // access_denied
	alertName   = []byte{21, 3, 3, 0, 2, 2, 112} // unrecognized_name
)

// Judged notes that what the client says first has been judged: the tunnel relays it as it is.
func (x *Exchange) Judged() { x.judged = true }

// TunnelOpening implements tunnel.Owner: a tunnel's client may name another host in TLS than
// its CONNECT did. Once that is judged, what decided about x is not kept but for what Ends
// needs: tunnels are open for days, and lists may have millions of names.
func (x *Exchange) TunnelOpening(b []byte, down int64) tunnel.Verdict {
	v := x.open(b, down)
	if v.Step != tunnel.Hold && v.Step != tunnel.Take {
		x.forget()
	}
	return v
}

func (x *Exchange) forget() {
	if x.Record.Service != catalog.Other || len(x.Groups) == 0 && x.Name == (policy.Target{}) {
		x.decided = &forgotten
		return
	}
	*x.decided = decided{Groups: x.Groups, Name: x.Name}
}

// Ends is why x, an open tunnel, ends at now by the rules of p; nil if it does not. Both
// its destination and the name in its TLS count. Apple's tunnels do not end.
func (x *Exchange) Ends(p *policy.Policy, now time.Time) error {
	rec := &x.Record
	if rec.Service != catalog.Other {
		return nil
	}
	host, addr, err := policy.ParseHost(rec.Host)
	if err != nil {
		return err
	}
	ask := policy.Request{
		Target: policy.Target{Host: host, Addr: addr, Port: rec.Port}, Client: rec.Client, User: rec.User, Groups: x.Groups,
		Connect: rec.Method == http.MethodConnect || rec.Action == policy.Inspect, Time: now,
	}
	by, ends := p.Ends(&ask, rec.Rule)
	if !ends && x.Name != (policy.Target{}) {
		ask.Target = x.Name
		by, ends = p.Ends(&ask, rec.Rule)
	}
	if !ends {
		return nil
	}
	return fmt.Errorf("ended by rule %s", by)
}

func (x *Exchange) open(b []byte, down int64) (v tunnel.Verdict) {
	if x.judged || x.Record.Method != http.MethodConnect || !inspect.MayBeTLS(b) {
		return v
	}
	hello, err := inspect.ParseHello(b)
	switch {
	case errors.Is(err, inspect.ErrShort):
		return tunnel.Verdict{Step: tunnel.Hold}
	case err != nil:
		return x.invalid(alertDecode, err)
	case hello.ServerName == "":
		return v
	}
	name, err := x.Named(hello.ServerName)
	if err != nil {
		return x.invalid(alertName, err)
	}
	if name == x.Target {
		return v
	}
	d := x.Agree(x.door.SNI, name)
	if down > 0 { // bytes are counted for the CONNECT's service already
		counted := d.Service() == x.Record.Service
		d.Match = x.Decision.Match
		switch {
		case d.Action == policy.Inspect:
			d.Action, d.Rule = policy.Deny, policy.RuleName
			return x.refuse(d, alertName, fmt.Errorf("TLS for %s, which is to be inspected, comes behind what the destination has sent", name.Host))
		case d.Action == policy.Tunnel && !counted:
			d.Action, d.Rule = policy.Deny, policy.RuleName
		}
	}
	switch {
	case d.Action == policy.Inspect || d.Page && down == 0:
		x.Name = name
		x.SetDecision(d)
		return tunnel.Verdict{Step: tunnel.Take}
	case d.Action != policy.Tunnel:
		return x.refuse(d, alertAccess, NameError(name))
	default:
		x.Name = name
		x.SetDecision(d)
		v.Service = x.service
		return v
	}
}

// Named returns the target that a name in TLS stands for.
func (x *Exchange) Named(sni string) (policy.Target, error) {
	host, addr, err := policy.ParseHost(sni)
	if err != nil {
		return policy.Target{}, fmt.Errorf("TLS for an invalid name: %w", err)
	}
	return policy.Target{Host: host, Addr: addr, Port: x.Target.Port}, nil
}

// Agree is what becomes of x, a CONNECT that was admitted, if TLS in it names another target,
// on a door with this outcome for the name.
func (x *Exchange) Agree(o policy.Outcome, name policy.Target) policy.Decision {
	return x.State.Policy.Agree(o, x.Ask(x.Target), x.Decision, name)
}

// Ask is the question whether the client of x may reach t by a CONNECT.
func (x *Exchange) Ask(t policy.Target) *policy.Request {
	return &policy.Request{Target: t, Client: x.Record.Client, User: x.Record.User, Groups: x.Groups, Connect: true}
}

// NameError is why a CONNECT is denied whose TLS names another host.
func NameError(name policy.Target) error {
	return fmt.Errorf("TLS names %s, which this CONNECT may not carry", name.Host)
}

// invalid denies an open tunnel that begins with TLS that can't be judged.
func (x *Exchange) invalid(alert []byte, err error) tunnel.Verdict {
	return x.refuse(policy.Decision{Action: policy.Deny, Rule: RuleTLS, Match: x.Decision.Match}, alert, err)
}

// refuse denies an open tunnel by d.
func (x *Exchange) refuse(d policy.Decision, alert []byte, err error) tunnel.Verdict {
	x.SetDecision(d)
	return tunnel.Verdict{Step: tunnel.Refuse, Say: alert, Err: err}
}

// TunnelTaken implements tunnel.Owner.
func (x *Exchange) TunnelTaken(client net.Conn) { x.p.Intercept(x, client) }
