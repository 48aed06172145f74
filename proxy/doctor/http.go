package doctor

import (
	"cmp"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// captiveHost is what devices ask to find out whether a network wants them to
// sign in. Its page says captiveText.
const (
	captiveHost = "captive.apple.com"
	captiveText = "Success"
)

// maxBody is what is read of an answer's body.
const maxBody = 4 << 10

// judgeHTTP says whether an answer is the host's own.
func judgeHTTP(host string, resp *http.Response) Finding {
	status := "answers " + strconv.Itoa(resp.StatusCode)
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return broken(StepHTTP, SignIn, "a proxy on the way"+viaOf(resp), status)
	case resp.StatusCode == http.StatusNetworkAuthenticationRequired:
		return broken(StepHTTP, CaptivePortal, "", status)
	case resp.StatusCode/100 == 3:
		if to, err := resp.Location(); err == nil && to.Host != "" && !kin(host, to.Hostname()) {
			return broken(StepHTTP, CaptivePortal, clean(to.Hostname()), status+" and leads elsewhere")
		}
	}
	if host == captiveHost {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), captiveText) {
			return broken(StepHTTP, CaptivePortal, "", status+", and not with Apple's page")
		}
	}
	return good("")
}

// viaOf is what an answer says of the proxy that it came from.
func viaOf(resp *http.Response) string {
	if via := clean(resp.Header.Get("Via")); via != "" {
		return " (" + via + ")"
	}
	return ""
}

// kin reports whether a host may lead to another: both are Apple's, or they have
// their last two labels in common.
func kin(host, to string) bool {
	to = strings.ToLower(strings.TrimSuffix(to, "."))
	if _, err := netip.ParseAddr(to); err == nil {
		return to == host
	}
	site := func(name string) string {
		labels := strings.Split(name, ".")
		return strings.Join(labels[max(0, len(labels)-2):], ".")
	}
	return site(host) == site(to) || site(to) == "apple.com" || site(to) == "icloud.com"
}

// ownAnswer reports whether a proxy speaks for itself: it asks for a password,
// or says what went wrong (RFC 9209).
func ownAnswer(resp *http.Response) bool {
	kind, _ := proxyError(resp)
	return resp.StatusCode == http.StatusProxyAuthRequired || kind != ""
}

// proxyError is the error type in the Proxy-Status of the nearest proxy, and what
// the name server answered where that is what went wrong; empty where there is
// none.
func proxyError(resp *http.Response) (kind, rcode string) {
	members := strings.Split(strings.Join(resp.Header.Values("Proxy-Status"), ","), ",")
	for param := range strings.SplitSeq(members[len(members)-1], ";") {
		param = strings.TrimSpace(param)
		if value, ok := strings.CutPrefix(param, "error="); ok {
			kind = value
		} else if value, ok := strings.CutPrefix(param, "rcode="); ok {
			rcode = strings.Trim(value, `"`)
		}
	}
	return kind, rcode
}

// refusedBy says why a proxy did not do what it was asked.
func refusedBy(proxy string, resp *http.Response) Finding {
	by := "the proxy " + proxy
	detail := "answers " + strconv.Itoa(resp.StatusCode)
	kind, rcode := proxyError(resp)
	if resp.StatusCode == http.StatusProxyAuthRequired {
		kind = "" // whatever it says
	}
	problem := cmp.Or(problemOf(kind, `; rcode="`+rcode+`"`), statusProblems[resp.StatusCode], ProxyFailed)
	// Espalier's answers name the rule, and say in a sentence what was wrong.
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		for i, line := range strings.Split(string(body), "\n") {
			if rule, ok := strings.CutPrefix(line, "Rule: "); ok {
				by += ", rule " + clean(rule)
			} else if i == 2 {
				detail += ": " + clean(line)
			}
		}
	}
	if !slices.Contains([]Problem{SignIn, Denied, AddressGuard, ProxyFailed}, problem) {
		by = "" // it says only what it met itself
	}
	return broken(StepProxy, problem, by, detail)
}
