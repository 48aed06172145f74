package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"espalier/proxy/accesslog"
	"espalier/web/server"
)

// params are the parameters of a request, and what is wrong with them.
type params struct {
	url.Values
	errs []error // each begins with the key
}

// paramsOf returns the parameters of a query, or of the form of a POST, whose own
// field csrf is none. One that is not among keys is an error: what it was meant to
// leave out would be in the answer.
func paramsOf(r *http.Request, keys ...string) (*params, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("the query cannot be read: %w", err)
	}
	if r.Method == http.MethodPost {
		if err := r.ParseForm(); err != nil {
			return nil, fmt.Errorf("the form cannot be read: %w", err)
		}
		q = r.PostForm
		q.Del("csrf")
	}
	for key := range q {
		if !slices.Contains(keys, key) {
			return nil, fmt.Errorf("there is no parameter %q (there are: %s)", key, strings.Join(keys, ", "))
		}
	}
	return &params{Values: q}, nil
}

func (p *params) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

// oneOf returns the value of a key, which must be one of allowed or empty.
func (p *params) oneOf(key string, allowed ...string) string {
	v := p.Get(key)
	if v != "" && !slices.Contains(allowed, v) {
		p.fail("%s: %q is unknown (allowed: %s)", key, v, strings.Join(allowed, ", "))
	}
	return v
}

// limit returns the number of records or rows that are wanted, PageSize if none is
// given.
func (p *params) limit() int {
	v := p.Get("limit")
	if v == "" {
		return PageSize
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > accesslog.MaxPage {
		p.fail("limit: %q is not between 1 and %d", v, accesslog.MaxPage)
	}
	return n
}

// flag returns the value of a key, without one if it is missing.
func (p *params) flag(key string, without bool) bool {
	if !p.Has(key) {
		return without
	}
	v, err := strconv.ParseBool(p.Get(key))
	if err != nil {
		p.fail("%s: %q is neither true nor false", key, p.Get(key))
	}
	return v
}

// problem names what is wrong, one each; nil if nothing is.
func (p *params) problem() error {
	return problems(http.StatusBadRequest, "the request has parameters that are not understood", errors.Join(p.errs...))
}

// ParseClient parses the address of a client, which may be empty: the zero Addr.
func ParseClient(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	client, err := netip.ParseAddr(text)
	if err != nil {
		return client, fmt.Errorf("client: %q is no address", text)
	}
	return client.Unmap().WithZone(""), nil
}

// errNoStore is the answer if there is no store to search.
var errNoStore = server.NewProblem(http.StatusNotFound, "there is no store to search: log.store.path is empty")
