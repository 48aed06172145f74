package api

import (
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/proxy/inspect"
	"espalier/web/server"
)

// ExceptionList is the answer of /api/v1/inspect/exceptions.
type ExceptionList struct {
	Exceptions []inspect.Exception `json:"exceptions"`
}

// What can be done about a host that is an exception from interception.
const (
	AcceptException = "accept" // tunnel it for good
	RefuseException = "refuse" // never exempt it
	ForgetException = "forget" // as if nothing had been known
)

// ChangeException does one of AcceptException, RefuseException and
// ForgetException with a host. The error is a *server.Problem.
func (c Control) ChangeException(do, name string) error {
	host, _, err := policy.ParseHost(name)
	if err != nil {
		return server.NewProblem(http.StatusBadRequest, "the host is none: "+err.Error())
	}
	switch do {
	case AcceptException:
		c.Exceptions.Set(host, inspect.Accepted)
	case RefuseException:
		c.Exceptions.Set(host, inspect.Refused)
	case ForgetException:
		if !c.Exceptions.Forget(host) {
			return server.NewProblem(http.StatusNotFound, fmt.Sprintf("%s is not among the exceptions", host))
		}
	default:
		return server.NewProblem(http.StatusNotFound, fmt.Sprintf("%q cannot be done with an exception", do))
	}
	c.Log.Info("an administrator has decided about interception", zap.String("host", host), zap.String("decision", do))
	return nil
}
