package pac

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"espalier/policy"

	"github.com/dop251/goja"
	"github.com/dop251/goja/parser"
)

// evalLimit bounds what a script may run for, since one that comes from
// elsewhere may not end.
const evalLimit = time.Second

// An Evaluator runs a script. It is not safe for concurrent use.
type Evaluator struct {
	vm    *goja.Runtime
	find  goja.Callable
	limit time.Duration
}

// NewEvaluator runs the outer level of a script, for a second at most. The
// script finds the language and nothing else: none of the functions that
// browsers offer to PAC scripts, since Espalier's scripts need none.
func NewEvaluator(script []byte) (*Evaluator, error) {
	return newEvaluator(script, evalLimit, nil)
}

func newEvaluator(script []byte, limit time.Duration, functions map[string]any) (*Evaluator, error) {
	e := &Evaluator{vm: goja.New(), limit: limit}
	e.vm.SetParserOptions(parser.WithDisableSourceMaps) // or a comment makes it read a file
	for name, f := range functions {
		if err := e.vm.Set(name, f); err != nil {
			return nil, fmt.Errorf("script: %s: %w", name, err)
		}
	}
	e.vm.SetMaxCallStackSize(1000)
	err := e.limited(func() error {
		_, err := e.vm.RunScript("proxy.pac", string(script))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	find, ok := goja.AssertFunction(e.vm.Get("FindProxyForURL"))
	if !ok {
		return nil, errors.New("script: has no function FindProxyForURL")
	}
	e.find = find
	return e, nil
}

// FindProxy returns what the script answers for url and host, a second later at
// most.
func (e *Evaluator) FindProxy(url, host string) (string, error) {
	var answer string
	err := e.limited(func() error {
		v, err := e.find(goja.Undefined(), e.vm.ToValue(url), e.vm.ToValue(host))
		if err != nil {
			return err
		}
		s, ok := v.Export().(string)
		if !ok {
			return fmt.Errorf("FindProxyForURL returned %s, which is no string", v)
		}
		answer = s
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("script: %w", err)
	}
	return answer, nil
}

// limited runs run and interrupts it after the limit.
func (e *Evaluator) limited(run func() error) error {
	fired := make(chan struct{})
	timer := time.AfterFunc(e.limit, func() {
		e.vm.Interrupt("ran longer than " + e.limit.String())
		close(fired)
	})
	err := guarded(run)
	if !timer.Stop() {
		<-fired // or the interrupt would hit the next run
		e.vm.ClearInterrupt()
	}
	return err
}

// guarded makes an error of a panic, which goja's parser does with some nonsense.
func guarded(run func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the engine cannot run it: %v", r)
		}
	}()
	return run()
}

// schemePorts are the default ports of the schemes that scripts are asked about.
var schemePorts = map[string]uint16{"http": 80, "ws": 80, "https": 443, "wss": 443, "ftp": 21}

// DeviceURL makes of what a person types (a URL, a name or host:port, the latter
// two meaning https) the arguments that a device calls FindProxyForURL with, and
// the target they mean. Like current systems it withholds user, path and query
// of an https URL.
func DeviceURL(s string) (rawURL, host string, t policy.Target, err error) {
	if !strings.Contains(s, "://") {
		if strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "[") {
			s = "[" + s + "]"
		}
		s = "https://" + s
	}
	fail := func(err error) (string, string, policy.Target, error) {
		return "", "", policy.Target{}, fmt.Errorf("%q is no URL, name or host:port: %w", s, err)
	}
	u, err := url.Parse(s)
	if err != nil {
		return fail(errors.Unwrap(err))
	}
	u.Scheme = strings.ToLower(u.Scheme)
	port, ok := schemePorts[u.Scheme]
	if !ok {
		return fail(errors.New("the scheme is none of http, https, ws, wss, ftp"))
	}
	if t, err = policy.ParseTarget(u.Host, port); err != nil {
		return fail(err)
	}
	host = t.Host
	if strings.HasSuffix(u.Hostname(), ".") {
		host += "." // devices leave it to the script
	}
	u.Host = host
	if t.Addr.Is6() {
		u.Host = "[" + host + "]"
	}
	if t.Port != port {
		u.Host += ":" + strconv.Itoa(int(t.Port))
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	if u.Path == "" || u.Scheme == "https" || u.Scheme == "wss" {
		u.Path, u.RawPath = "/", ""
	}
	if u.Scheme == "https" || u.Scheme == "wss" {
		u.RawQuery, u.ForceQuery = "", false
	}
	return u.String(), host, t, nil
}
