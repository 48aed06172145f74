package proxy

import (
	"encoding/base64"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"

	"espalier/policy"
	"espalier/policy/auth"
)

// decide asks the policy about x, and a second time where the first answer is
// that somebody must sign in and the request says who. Credentials are not
// looked at otherwise: Apple's hosts see and cost none. A refusal that is not nil
// is the answer to a request that does not pass; what it needs in its header
// stands in h.
func (s *Server) decide(st *State, x *exchange, r *http.Request, h http.Header) (policy.Decision, *refusal) {
	req := policy.Request{Target: x.target, Client: x.rec.Client, Connect: x.rec.Method == http.MethodConnect}
	d := st.Policy.Decide(&req)
	if d.Action != policy.Challenge {
		x.decided(d)
		return d, refusalOf(d)
	}
	name, password, ok := parseBasic(r.Header.Get("Proxy-Authorization"))
	if !ok {
		h.Set("Proxy-Authenticate", st.Auth.Challenge())
		x.decided(d)
		return d, &refuseSignIn
	}
	user, err := st.Auth.SignIn(r.Context(), req.Client, name, password)
	damped := (*auth.DampedError)(nil)
	refuse := &refuseSignIn
	switch {
	case err == nil:
		req.User, req.Groups = user.Name, user.Groups
		x.rec.User, x.groups = user.Name, user.Groups
		d = st.Policy.Decide(&req)
		refuse = refusalOf(d)
	case errors.Is(err, auth.ErrWrong):
		h.Set("Proxy-Authenticate", st.Auth.Challenge())
	// A 407 would make the device ask its user, whom no password helps now.
	case errors.As(err, &damped):
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(damped.Wait.Seconds()))))
		d.Action, refuse = policy.Deny, &refuseDamped
	default:
		h.Set("Retry-After", "5")
		d.Action, refuse = policy.Error, &refuseNoSignIn
	}
	x.decided(d)
	if err != nil {
		x.rec.Error = err.Error()
	}
	return d, refuse
}

// refusalOf says how the client is told of a decision that is not to let the
// request pass; nil where it passes.
func refusalOf(d policy.Decision) *refusal {
	switch {
	case d.Action != policy.Deny:
		return nil
	case d.Rule == policy.RuleClients:
		return &refuseClient
	}
	return &refuseDenied
}

// parseBasic parses the credentials of a Proxy-Authorization header (RFC 7617).
func parseBasic(header string) (name, password string, ok bool) {
	scheme, encoded, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(decoded), ":")
}
