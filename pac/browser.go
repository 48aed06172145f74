package pac

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// NewBrowserEvaluator is NewEvaluator for scripts from elsewhere: they find the
// functions that browsers offer. Names are not looked up, so that none resolves;
// the ranges of days and times hold for no time; myIpAddress is client, or
// 127.0.0.1 where that is not valid; alert says nothing.
func NewBrowserEvaluator(script []byte, client netip.Addr) (*Evaluator, error) {
	return newEvaluator(script, evalLimit, browserFunctions(client))
}

// BrowserFunctions are the names of the functions that browsers offer to PAC
// scripts, and whether Apple's devices have to wait for DNS or the network to
// answer there.
var BrowserFunctions = map[string]bool{
	"isPlainHostName": false, "dnsDomainIs": false, "localHostOrDomainIs": false, "dnsDomainLevels": false,
	"shExpMatch": false, "weekdayRange": false, "dateRange": false, "timeRange": false, "convert_addr": false,
	"alert": false, "getClientVersion": false, "sortIpAddressList": false, "isInNetEx": true,
	"isResolvable": true, "isResolvableEx": true, "isInNet": true, "dnsResolve": true, "dnsResolveEx": true,
	"myIpAddress": true, "myIpAddressEx": true,
}

func browserFunctions(client netip.Addr) map[string]any {
	address := "127.0.0.1"
	if client.IsValid() {
		address = client.Unmap().String()
	}
	literal := func(host string) netip.Addr {
		a, _ := netip.ParseAddr(host)
		return a
	}
	never := func(...any) bool { return false }
	resolvable := func(host string) bool { return literal(host).IsValid() }
	resolve := func(host string) any {
		if !literal(host).IsValid() {
			return nil
		}
		return host
	}
	return map[string]any{
		"isPlainHostName": func(host string) bool { return !strings.ContainsAny(host, ".:") },
		"dnsDomainIs":     func(host, domain string) bool { return strings.HasSuffix(host, domain) },
		"localHostOrDomainIs": func(host, whole string) bool {
			return host == whole || !strings.Contains(host, ".") && strings.HasPrefix(whole, host+".")
		},
		"dnsDomainLevels": func(host string) int { return strings.Count(host, ".") },
		"shExpMatch":      shExpMatch,
		"isResolvable":    resolvable,
		"isResolvableEx":  resolvable,
		"dnsResolve":      resolve,
		"dnsResolveEx":    resolve,
		"myIpAddress":     func() string { return address },
		"myIpAddressEx":   func() string { return address },
		"isInNet": func(host, network, mask string) bool {
			h, n, m := literal(host).Unmap(), literal(network), literal(mask)
			return h.Is4() && n.Is4() && m.Is4() && bits4(h)&bits4(m) == bits4(n)&bits4(m)
		},
		"isInNetEx": func(host, block string) bool {
			p, err := netip.ParsePrefix(block)
			return err == nil && p.Contains(literal(host))
		},
		"convert_addr": func(host string) uint32 {
			if a := literal(host); a.Is4() {
				return bits4(a)
			}
			return 0
		},
		"sortIpAddressList": func(list string) string { return list },
		"getClientVersion":  func() string { return "1.0" },
		"weekdayRange":      never, "dateRange": never, "timeRange": never,
		"alert": func(...any) {},
	}
}

func bits4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// shExpMatch matches the whole of s, where * stands for any characters and ? for
// one. Nothing else is special.
func shExpMatch(s, pattern string) bool {
	star, back := -1, 0 // behind the last star, and what it has swallowed up to
	i, p := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			p++
			star, back = p, i
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			i, p = i+1, p+1
		case star >= 0:
			back++
			i, p = back, star
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
