package api

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"espalier/pac"
	"espalier/policy"
	"espalier/policy/lists"
	"espalier/proxy/inspect"
	"espalier/web/explain"
	"espalier/web/server"
)

// explain is GET and POST /explain. POST keeps the URL out of logs.
func (c Control) explain(r *http.Request) (any, error) {
	q, err := paramsOf(r, "url", "client", "user", "group", "at")
	if err != nil {
		return nil, err
	}
	ask := explain.Question{Target: q.Get("url"), User: q.Get("user"), Groups: q.Values["group"]}
	switch {
	case ask.Target == "":
		return nil, errors.New("url: is missing (wanted: a URL, a host or host:port)")
	case ask.User == "" && len(ask.Groups) > 0:
		return nil, errors.New("group: needs user")
	}
	if ask.Client, err = ParseClient(q.Get("client")); err != nil {
		return nil, err
	}
	if at := q.Get("at"); at != "" {
		if ask.At, err = time.Parse(time.RFC3339, at); err != nil {
			return nil, fmt.Errorf("at: %q is not a time of RFC 3339", at)
		}
	}
	x, err := c.Explainer().Explain(ask)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	return x, nil
}

// PACScript is the answer of /api/v1/pac.
type PACScript struct {
	Site    string   `json:"site"`    // empty outside sites
	Sites   []string `json:"sites"`   // all there are; never null
	Proxies []string `json:"proxies"` // in order; never null
	Bytes   int      `json:"bytes"`
	ETag    string   `json:"etag"`
	Script  string   `json:"script"`
}

// pac is GET /pac.
func (c Control) pac(r *http.Request) (any, error) {
	q, err := paramsOf(r, "site", "client")
	if err != nil {
		return nil, err
	}
	site, script, proxies, err := c.Script(q.Get("site"), q.Get("client"))
	if err != nil {
		return nil, err
	}
	return PACScript{
		Site: site, Sites: filled(c.Explainer().PAC.Sites()), Proxies: filled(proxies),
		Bytes: len(script.Body), ETag: script.ETag, Script: string(script.Body),
	}, nil
}

// PACAnswers is the answer of /api/v1/pac/eval.
type PACAnswers struct {
	Site    string      `json:"site"`
	Answers []PACAnswer `json:"answers"`
}

// A PACAnswer is what the script answers when called with URL and Host.
type PACAnswer struct {
	URL    string `json:"url"`
	Host   string `json:"host"`
	Answer string `json:"answer"`
}

// MaxURLs bounds how many URLs are evaluated at once.
const MaxURLs = 100

// evalPAC is GET /pac/eval.
func (c Control) evalPAC(r *http.Request) (any, error) {
	q, err := paramsOf(r, "url", "site", "client")
	if err != nil {
		return nil, err
	}
	site, script, _, err := c.Script(q.Get("site"), q.Get("client"))
	if err != nil {
		return nil, err
	}
	urls := q.Values["url"]
	if n := len(urls); n == 0 || n > MaxURLs {
		return nil, fmt.Errorf("url: there are %d (wanted: 1 to %d)", n, MaxURLs)
	}
	engine, err := pac.NewEvaluator(script.Body)
	if err != nil {
		panic(err) // a mistake in the script, answered with 500
	}
	answers := PACAnswers{Site: site}
	for _, text := range urls {
		url, host, _, err := pac.DeviceURL(text)
		if err != nil {
			return nil, fmt.Errorf("url: %w", err)
		}
		found, err := engine.FindProxy(url, host)
		if err != nil {
			panic(err)
		}
		answers.Answers = append(answers.Answers, PACAnswer{url, host, found})
	}
	return answers, nil
}

// Script returns the script of a site, or if that is empty the one that a client
// is given; either may be empty. Errors say what is wrong with them, or are a
// *server.Problem.
func (c Control) Script(site, address string) (_ string, script *pac.Script, proxies []string, err error) {
	client, err := ParseClient(address)
	if err != nil {
		return "", nil, nil, err
	}
	e := c.Explainer()
	if site == "" && client.IsValid() {
		site = e.PAC.SiteFor(client)
	} else if site != "" && !e.PAC.HasSite(site) {
		return "", nil, nil, server.NewProblem(http.StatusNotFound, fmt.Sprintf("there is no site %q in pac.sites", site))
	}
	if script, proxies, err = e.Script(site, client); err != nil {
		return "", nil, nil, server.NewProblem(http.StatusServiceUnavailable, err.Error())
	}
	return site, script, proxies, nil
}

// Lists is the answer of /api/v1/lists.
type Lists struct {
	Lists []lists.Status `json:"lists"` // never null
}

// Settings is the answer of /api/v1/config: the configuration in force.
type Settings struct {
	File     string    `json:"file"` // empty for the embedded default
	Settings []Setting `json:"settings"`
}

// A Setting is the value of a key.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"` // as YAML has it, secrets as xxxxx
	// Origin is "default", "FILE:LINE", "environment NAME" or "flag --set KEY".
	Origin string `json:"origin"`
}

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
// ForgetException with a host pattern. The error is a *server.Problem.
func (c Control) ChangeException(do, pattern string) error {
	host, err := policy.ParsePattern(pattern)
	if err != nil {
		return server.NewProblem(http.StatusBadRequest, "invalid host: "+err.Error())
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
	c.Log.Info("administrator decided about interception", zap.String("host", host), zap.String("decision", do))
	return nil
}
