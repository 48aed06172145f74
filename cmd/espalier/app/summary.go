package app

import (
	"cmp"
	"strings"
)

// A Summary is what a start says: what runs, and what to do next.
type Summary struct {
	Config, Data string
	Proxy, PAC   string
	Why          string // there is no PAC URL
	Secret       bool   // of the PAC URL a part is left out
	Console      string
	Setup        string // link that makes the console's first user; empty where there are users
}

func (a *App) summary() Summary {
	cfg := a.cfg()
	s := Summary{
		Config: cmp.Or(a.options.File, "embedded default"), Data: cfg.Data, Proxy: a.proxyAddress(), PAC: a.pacURL(""),
		Console: a.consoleURL(),
	}
	if t := cfg.PAC.Token; t != "" { // what is printed here ends up in the journal
		s.PAC, s.Secret = strings.ReplaceAll(s.PAC, t, "TOKEN"), true
	}
	switch {
	case s.PAC != "":
	case !a.sockets.has(forPublic):
		s.Why = "web.public is empty: this process serves no script"
	default:
		s.Why = "devices cannot reach the addresses of web.public"
	}
	if s.Console != "" && !a.desk.HasUsers() {
		s.Setup, _, _ = a.setupLink()
	}
	return s
}
