package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/proxy/inspect"
)

// ExceptionList is the answer of /api/v1/inspect/exceptions.
type ExceptionList struct {
	Exceptions []inspect.Exception `json:"exceptions"`
}

func (s Source) exceptions(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, "application/json", ExceptionList{s.Exceptions.List()})
}

// What can be done about a host on the control socket.
const (
	AcceptException = "accept" // tunnel it for good
	RefuseException = "refuse" // never exempt it
	ForgetException = "forget" // as if nothing had been known
)

// changeException is POST /inspect/exceptions/{do}?host=HOST.
func (c Control) changeException(w http.ResponseWriter, r *http.Request) {
	if p := c.decideException(r.PathValue("do"), r.URL.Query().Get("host")); p != nil {
		writeProblem(w, p.Status, p.Detail)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// decideException does one of AcceptException, RefuseException and
// ForgetException with a host; nil: it is done.
func (c Control) decideException(do, name string) *Problem {
	host, _, err := policy.ParseHost(name)
	if err != nil {
		return &Problem{Status: http.StatusBadRequest, Detail: "the host is none: " + err.Error()}
	}
	switch do {
	case AcceptException:
		c.Exceptions.Set(host, inspect.Accepted)
	case RefuseException:
		c.Exceptions.Set(host, inspect.Refused)
	case ForgetException:
		if !c.Exceptions.Forget(host) {
			return &Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("%s is not among the exceptions", host)}
		}
	default:
		return &Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("%q cannot be done with an exception", do)}
	}
	c.Log.Info("an administrator has decided about interception", zap.String("host", host), zap.String("decision", do))
	return nil
}

// Exceptions asks for the hosts whose clients refuse interception.
func (c *ControlClient) Exceptions(ctx context.Context) ([]inspect.Exception, error) {
	var list ExceptionList
	err := c.do(ctx, http.MethodGet, "/inspect/exceptions", &list)
	return list.Exceptions, err
}

// ChangeException does one of AcceptException, RefuseException and ForgetException
// with a host.
func (c *ControlClient) ChangeException(ctx context.Context, do, host string) error {
	return c.do(ctx, http.MethodPost, "/inspect/exceptions/"+do+"?"+url.Values{"host": {host}}.Encode(), nil)
}
