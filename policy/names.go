package policy

import "espalier/policy/catalog"

// Agree returns what becomes of the CONNECT r, which Decide has answered by d, when the
// client's TLS names another host at the same port (SNI, RFC 6066): name. o is the door's
// outcome for such a name. If it is Stricter, the policy is asked about the name too, and the
// stricter decision holds: deny and challenge before inspect before tunnel before Apple's. In
// particular:
//
//   - A CONNECT to Apple with another of Apple's names stays Apple's unless that name is
//     denied.
//   - A CONNECT to Apple with a foreign name is decided by that name, and counts as other.
//   - A CONNECT elsewhere with one of Apple's names is denied: the connection leads to the
//     CONNECT's host, not to Apple.
//   - A name that needs a user is denied if no user has signed in: after the answer to the
//     CONNECT the proxy can't ask.
//   - A name that a preset connects to another address is denied in a tunnel to anywhere else.
//
// Unseen leaves d as it is, and every other outcome denies. Dial is the CONNECT's still, since
// it may be connected already. Agree does not allocate.
func (p *Policy) Agree(o Outcome, r *Request, d Decision, name Target) Decision {
	switch {
	case name == r.Target, d.Action == Deny, o == Unseen:
		return d
	case o != Stricter:
		d.Action, d.Rule, d.Page, d.Learn = Deny, RuleName, false, false
		return d
	}
	ask := *r
	ask.Target, ask.Connect = name, true
	n := p.Decide(&ask)
	apple := d.Match.OK() && n.Match.OK()
	addressed := n.Dial == name || n.Dial == d.Dial
	switch {
	case n.Action == Challenge:
		n.Action = Deny
	case n.Action == Deny:
	case apple:
		return d
	case n.Match.OK():
		n = Decision{Action: Deny, Rule: RuleName, HideURL: n.HideURL}
	case d.Match.OK():
		if n.Action == Tunnel && !addressed {
			n.Action, n.Rule = Deny, RuleName
		}
	case d.Action == Inspect: // whatever the name says
		d.HideURL, d.Learn = d.HideURL || n.HideURL, d.Learn && n.Learn
		return d
	case n.Action == Tunnel && addressed:
		d.HideURL = d.HideURL || n.HideURL
		return d
	case n.Action == Tunnel:
		n.Action, n.Rule = Deny, RuleName
	}
	n.Dial, n.HideURL = d.Dial, d.HideURL || n.HideURL
	if !apple {
		n.Match = catalog.Match{}
	}
	return n
}
