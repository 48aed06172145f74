package pac

import (
	"errors"
	"fmt"
	"strings"
)

// A Hop is one way of an answer, "PROXY host:port" or "DIRECT".
type Hop struct {
	// Kind is DIRECT, PROXY, HTTP, HTTPS, SOCKS, SOCKS4 or SOCKS5.
	Kind string
	// Proxy is host:port; empty for DIRECT.
	Proxy string
}

// hopKinds are what engines know, and whether a proxy follows.
var hopKinds = map[string]bool{
	"DIRECT": false, "PROXY": true, "HTTP": true, "HTTPS": true, "SOCKS": true, "SOCKS4": true, "SOCKS5": true,
}

// ParseAnswer reads what a script returned, as a strict engine would: kinds in
// capitals, ports written out, no IPv6 literal. One semicolon may end it.
func ParseAnswer(answer string) ([]Hop, error) {
	if strings.TrimSpace(answer) == "" {
		return nil, errors.New("it is empty (write DIRECT)")
	}
	var hops []Hop
	for part := range strings.SplitSeq(strings.TrimSuffix(strings.TrimSpace(answer), ";"), ";") {
		words := strings.Fields(part)
		if len(words) == 0 {
			return nil, errors.New("nothing stands between two semicolons")
		}
		kind, proxy := words[0], words[1:]
		wantsProxy, known := hopKinds[kind]
		switch {
		case !known && hopKinds[strings.ToUpper(kind)]:
			return nil, fmt.Errorf("%q is in small letters, which not every engine takes (write %s)", kind, strings.ToUpper(kind))
		case !known:
			return nil, fmt.Errorf("%q is no way to go (allowed: PROXY host:port, DIRECT)", kind)
		case !wantsProxy && len(proxy) > 0:
			return nil, fmt.Errorf("%q stands behind %s, which takes nothing", strings.Join(proxy, " "), kind)
		case wantsProxy && len(proxy) != 1:
			return nil, fmt.Errorf("%q has not one host:port", strings.TrimSpace(part))
		}
		hop := Hop{Kind: kind}
		if wantsProxy {
			var err error
			if hop.Proxy, err = parseProxy(proxy[0]); err != nil {
				return nil, err
			}
		}
		hops = append(hops, hop)
	}
	return hops, nil
}
