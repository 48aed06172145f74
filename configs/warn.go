package configs

import (
	"fmt"

	"espalier/policy"
)

// warnings are keys that are valid, and hardly what is wanted.
// file is the configuration file, empty where there is none.
func (l *Loaded) warnings(file string) Problems {
	var problems Problems
	if c := l.Config; len(c.Proxy.TLSListen) > 0 && !c.TLS.Enabled() {
		problems = append(problems, problem(l.root, "proxy.tls_listen: has no certificate that clients trust: Espalier signs one by itself (configure tls.acme or tls.files, or say tls.self_signed: true)"))
	}
	for _, w := range policy.Warnings(l.Config.Rules, l.Config.Apple) {
		problems = append(problems, problem(l.root, w.Error()))
	}
	problems = append(problems, l.respelled()...)
	me := self()
	for _, f := range l.secretFiles(file) {
		if err := me.exposed(*f.name); err != nil {
			problems = append(problems, problem(l.root, f.key+": "+err.Error()))
		}
	}
	problems.sort()
	return problems
}

// respelled are users of rules and groups whom auth.htpasswd writes otherwise, so that these
// do not apply to them.
func (l *Loaded) respelled() Problems {
	var problems Problems
	warn := func(key, name string) {
		if as, ok := l.users.Respelled(name); ok {
			problems = append(problems, problem(l.root, fmt.Sprintf("%s: does not apply to user %q: auth.htpasswd has no user %q, and names are compared as written", key, as, name)))
		}
	}
	for i, r := range l.Config.Rules {
		for j, name := range r.When.Users {
			warn(fmt.Sprintf("rules[%d].when.users[%d]", i, j), name)
		}
	}
	for _, name := range l.users.Members() {
		warn("auth.groups", name)
	}
	return problems
}
