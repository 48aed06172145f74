package configs

// warnings are keys that are valid, and hardly what is wanted.
func (l *Loaded) warnings() Problems {
	var problems Problems
	if c := l.Config; len(c.Proxy.TLSListen) > 0 && !c.TLS.Enabled() {
		problems = append(problems, problem(l.root, "proxy.tls_listen: has no certificate that clients trust: Espalier signs one by itself (configure tls.acme or tls.files, or say tls.self_signed: true)"))
	}
	return problems
}
