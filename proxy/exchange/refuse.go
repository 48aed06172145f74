package exchange

import (
	"errors"
	"net/http"

	"espalier/policy"
	"espalier/proxy/refusal"
)

// A Refused says how a request is refused.
type Refused struct {
	refusal.Refusal
	// Field is one more header field of the answer; zero: none.
	Field struct{ Name, Value string }
}

// Error implements error.
func (r *Refused) Error() string { return r.Text }

// AsRefused says how a client is told of err: one of Admit, or one on the way to the
// origin.
func AsRefused(err error) *Refused {
	if r, ok := errors.AsType[*Refused](err); ok {
		return r
	}
	return &Refused{Refusal: refusal.For(err)}
}

func refuse(r refusal.Refusal) error { return &Refused{Refusal: r} }

// refuseWith is refuse with a header field.
func refuseWith(r refusal.Refusal, name, value string) error {
	refused := &Refused{Refusal: r}
	refused.Field.Name, refused.Field.Value = name, value
	return refused
}

// Malformed notes a request that is not valid HTTP because of err, and says how it is
// refused, with status. r has what could be read.
func (x *Exchange) Malformed(r *Request, status int, err error) *Refused {
	refused, rule := &Refused{Refusal: refusal.Malformed}, RuleMalformed
	refused.Status = status
	if x.Record.Method == http.MethodConnect { // iOS would go without the proxy after a 400
		refused, rule = &Refused{Refusal: refusal.Name}, RuleTarget
	} else {
		x.SetHeader(r.Header)
	}
	if ses := r.Session; ses != nil {
		x.SetTarget(ses.Target)
		x.Record.User = ses.Record.User
	} else if t, err := policy.ParseTarget(r.Authority, 80); err == nil {
		x.SetTarget(t)
	} else {
		x.SetAuthority(r.Authority)
	}
	x.Deny(rule, "malformed request: "+err.Error())
	return refused
}
