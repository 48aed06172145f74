package configs

import "espalier/policy"

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
	me := self()
	for _, f := range l.secretFiles(file) {
		if err := me.exposed(*f.name); err != nil {
			problems = append(problems, problem(l.root, f.key+": "+err.Error()))
		}
	}
	problems.sort()
	return problems
}
