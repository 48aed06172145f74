package pac

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"espalier/policy"

	"github.com/dlclark/regexp2/v2"
	"github.com/dop251/goja"
	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/parser"
	"github.com/dop251/goja/unistring"
)

// evalLimit bounds what a script may run for, since one that comes from
// elsewhere may not end.
const evalLimit = time.Second

// maxInterrupts is how many runs of a script may exceed the limit before it counts
// as too slow.
const maxInterrupts = 4

// A regular expression that backtracks cannot be interrupted: it gives up without a
// match, once the interrupt is sure to end the script.
func init() { regexp2.DefaultMatchTimeout = 2 * evalLimit }

// An Evaluator runs a script. It is not safe for concurrent use.
type Evaluator struct {
	vm     *goja.Runtime
	find   goja.Callable
	limit  time.Duration
	engine Engine
	fault  error // of a script that does not run in the engine
	// host is nil without functions of browsers.
	host      *host
	mayDiffer bool
	usesURL   bool // the answer may depend on the URL beside the host
	// interrupts counts the runs that exceeded the limit.
	interrupts int
}

// NewEvaluator runs the outer level of a script, for a second at most. The
// script finds the language and nothing else: none of the functions that
// browsers offer to PAC scripts, since Espalier's scripts need none.
func NewEvaluator(script []byte) (*Evaluator, error) {
	return newEvaluator(script, evalLimit, nil)
}

// newEvaluator offers the functions of browser, if that is not nil.
func newEvaluator(script []byte, limit time.Duration, browser *Browser) (*Evaluator, error) {
	tree, err := Parse(string(script))
	if list, ok := errors.AsType[parser.ErrorList](err); ok && len(list) > 0 {
		err = fmt.Errorf("SyntaxError: line %d, column %d: %s", list[0].Position.Line, list[0].Position.Column, list[0].Message)
	}
	if err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	e := &Evaluator{vm: goja.New(), limit: limit, usesURL: true}
	e.vm.SetMaxCallStackSize(1000)
	if err := boundCode(e.vm); err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	if browser != nil {
		e.engine = cmp.Or(browser.Engine, Chromium)
		e.mayDiffer = mayDiffer(tree)
		e.usesURL = usesURL(tree)
		if e.host, err = browser.install(e.vm); err != nil {
			return nil, fmt.Errorf("script: %w", err)
		}
	}
	markEval(tree)
	err = e.limited(func() error {
		program, err := goja.CompileAST(tree, false)
		if err != nil {
			return err
		}
		_, err = e.vm.RunProgram(program)
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
	e.mayDiffer = e.mayDiffer || e.host != nil && e.host.differs
	return e, nil
}

// usesURL reports whether a script may use the first argument of FindProxyForURL: it
// does not if every function of that name has a first parameter whose name occurs
// nowhere else.
func usesURL(tree *ast.Program) bool {
	names, found := map[unistring.String]int{}, 0
	Walk(tree, func(n any) bool {
		switch n := n.(type) {
		case *ast.Identifier:
			names[n.Name]++
		case *ast.FunctionLiteral:
			if n.Name == nil || n.Name.Name != "FindProxyForURL" {
				break
			}
			var id *ast.Identifier
			if list := n.ParameterList.List; len(list) == 2 {
				id, _ = list[0].Target.(*ast.Identifier)
			}
			if id == nil {
				names["arguments"]++
				break
			}
			found++
			names[id.Name]--
			if names[id.Name] == 0 {
				delete(names, id.Name)
			}
			names["\x00"+id.Name] = 1
		}
		return true
	})
	for name := range names {
		if parameter, ok := strings.CutPrefix(string(name), "\x00"); ok && names[unistring.String(parameter)] > 0 {
			return true
		}
	}
	return found == 0 || names["FindProxyForURL"] != found || names["arguments"] > 0 || names["eval"] > 0 || names["Function"] > 0
}

// Names that no script can write.
const (
	checked = "\x00checked" // returns its argument, if Parse does not refuse it
	aliased = "\x00eval"    // eval under another name
)

// markEval makes eval(x) eval(checked(x)), which keeps the scope of the caller, and
// eval elsewhere the function that checks itself.
func markEval(tree *ast.Program) {
	direct := map[*ast.Identifier]bool{}
	Walk(tree, func(n any) bool {
		switch n := n.(type) {
		case *ast.CallExpression:
			if id, ok := n.Callee.(*ast.Identifier); ok && id.Name == "eval" && len(n.ArgumentList) > 0 {
				direct[id] = true
				n.ArgumentList[0] = &ast.CallExpression{
					Callee:       &ast.Identifier{Name: checked, Idx: id.Idx},
					ArgumentList: []ast.Expression{n.ArgumentList[0]},
				}
			}
		case *ast.Identifier:
			if n.Name == "eval" && !direct[n] {
				n.Name = aliased
			}
		}
		return true
	})
}

var evalWord = regexp.MustCompile(`\beval\b`)

// boundCode makes functions refuse text and arrays that the engine would recurse
// too deep for: eval, JSON.parse and the constructors of functions what Parse
// refuses, the others what exceeds the depth of calls.
func boundCode(vm *goja.Runtime) error {
	vm.SetParserOptions(parser.WithDisableSourceMaps) // or a comment makes it read a file
	const wrap = `(function (global, check) {
		[function () {}, function* () {}, async function () {}].forEach(function (f) {
			var prototype = Object.getPrototypeOf(f), make = prototype.constructor;
			var bounded = function () {
				for (var i = 0; i < arguments.length; i++) check(String(arguments[i]));
				return make.apply(null, arguments);
			};
			bounded.prototype = prototype;
			Object.defineProperty(prototype, "constructor", {value: bounded, configurable: true, writable: true});
		});
		global.Function = Function.prototype.constructor;
		var parse = JSON.parse, stringify = JSON.stringify;
		JSON.parse = function (text, revive) { return parse(check(String(text)), revive); };
		JSON.stringify = function (value, replace, space) { depth(value); return stringify(value, replace, space); };
		["join", "toString", "toLocaleString", "flat"].forEach(function (name) {
			var method = Array.prototype[name];
			Object.defineProperty(Array.prototype, name, {configurable: true, writable: true, value: function () {
				if (name == "flat") depth(this);
				return method.apply(this, arguments);
			}});
		});
		function depth(value) {
			for (var key in value) {
				if (typeof value[key] == "object") depth(value[key]);
			}
		}
	})`
	define, err := vm.RunString(wrap)
	if err != nil {
		return err
	}
	call, _ := goja.AssertFunction(define)
	check := func(c goja.FunctionCall) goja.Value {
		text := c.Argument(0).String()
		err := measure(text)
		if err == nil && evalWord.MatchString(text) {
			err = errors.New("eval within text that runs as a script")
		}
		if err != nil {
			panic(vm.NewGoError(err))
		}
		return c.Argument(0)
	}
	if _, err := call(goja.Undefined(), vm.GlobalObject(), vm.ToValue(check)); err != nil {
		return err
	}
	intrinsic, _ := goja.AssertFunction(vm.Get("eval"))
	return errors.Join(vm.Set(checked, check), vm.Set(aliased, func(c goja.FunctionCall) goja.Value {
		v, err := intrinsic(goja.Undefined(), check(c))
		if err != nil {
			panic(err)
		}
		return v
	}))
}

// FindProxy returns what the script answers for url and host, a second later at
// most.
func (e *Evaluator) FindProxy(url, host string) (string, error) {
	if e.fault != nil {
		return "", e.fault
	}
	if e.host != nil {
		e.host.differs = false
	}
	var answer string
	err := e.limited(func() error {
		v, err := e.find(goja.Undefined(), e.vm.ToValue(url), e.vm.ToValue(host))
		if err != nil {
			return err
		}
		s, ok := v.Export().(string)
		if !ok {
			return fmt.Errorf("FindProxyForURL returned %s, which is not a string", v)
		}
		answer = s
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("script: %w", err)
	}
	return answer, nil
}

// TooSlow reports whether the script exceeded the limit so often that to ask it about
// many URLs would take minutes.
func (e *Evaluator) TooSlow() bool { return e.interrupts >= maxInterrupts }

// limited runs run and interrupts it after the limit.
func (e *Evaluator) limited(run func() error) error {
	fired := make(chan struct{})
	timer := time.AfterFunc(e.limit, func() {
		e.vm.Interrupt("ran longer than " + e.limit.String())
		close(fired)
	})
	err := guarded(run)
	if late, ok := errors.AsType[*goja.InterruptedError](err); ok {
		err = fmt.Errorf("%v", late.Value()) // where that was is chance
	}
	if !timer.Stop() {
		<-fired // or the interrupt would hit the next run
		e.interrupts++
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
