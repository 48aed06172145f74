package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"unicode"

	"espalier/proxy/egress"
	"espalier/proxy/egress/lookup"
	"espalier/proxy/refusal"
)

// A Problem is what is wrong with the way to a host. The values are stable.
type Problem string

const (
	NoSuchName     Problem = "no-such-name"
	NoAddress      Problem = "no-address"
	DNSTimeout     Problem = "dns-timeout"
	DNSFailed      Problem = "dns-failed"
	AddressGuard   Problem = "address-guard"
	Refused        Problem = "refused"
	Reset          Problem = "reset"
	TimedOut       Problem = "timeout"
	Unroutable     Problem = "unroutable"
	Intercepted    Problem = "intercepted"
	Expired        Problem = "expired"
	WrongName      Problem = "wrong-name"
	BadCertificate Problem = "bad-certificate"
	TLSAlert       Problem = "tls-alert"
	NotTLS         Problem = "not-tls"
	NoHTTP2        Problem = "no-http2"
	NotHTTP        Problem = "not-http"
	CaptivePortal  Problem = "captive-portal"
	NotNTP         Problem = "not-ntp"
	SignIn         Problem = "sign-in"
	Denied         Problem = "denied"
	ProxyDown      Problem = "proxy-down"
	ProxyFailed    Problem = "proxy-failed"
)

// advice is what a problem means, and what to do next.
var advice = map[Problem]struct{ title, next string }{
	NoSuchName: {"The name does not exist",
		"Ask another name server (egress.dns). Where that one knows the name, a filter in the first is in the way."},
	NoAddress: {"The name has no address",
		"Ask another name server (egress.dns). Where that one has an address, a filter in the first is in the way."},
	DNSTimeout: {"No name server answers in time",
		"Let this machine reach its name servers at port 53, UDP and TCP, or name others (egress.dns)."},
	DNSFailed: {"The name cannot be looked up",
		"See what the name server or its log says, or name another (egress.dns)."},
	AddressGuard: {"The name leads to an address that is not public",
		"Look for a name filter or portal that answers in the host's place. Where the address is meant, egress.allow has to name it."},
	Refused: {"The connection is refused",
		"Look for a firewall that rejects TCP to this port, or a wrong address in egress.hosts."},
	Reset: {"The connection is cut",
		"Look for a firewall that filters by the host's name (SNI) or by what it takes the traffic for, and exempt Apple's hosts there."},
	TimedOut: {"Nothing answers in time",
		"Look for a firewall that drops packets to this port, and let it pass them."},
	Unroutable: {"There is no route",
		"See to it that this machine has a route to the Internet."},
	Intercepted: {"Somebody intercepts TLS",
		"Exempt Apple's hosts from inspection there: devices take Apple's own certificates only. Where this CA is a public one, let --roots name it."},
	Expired: {"The certificate has expired, or is not valid yet",
		"See whether this machine's clock is right. Where it is, somebody else answers in the host's place."},
	WrongName: {"The certificate is for another name",
		"Look for a portal, a filter or a wrong address in egress.hosts: somebody else answers in the host's place."},
	BadCertificate: {"The certificate is not valid",
		"Look for who answers in the host's place: its own certificate would be valid."},
	TLSAlert: {"The other side breaks the TLS handshake off",
		"Look for a firewall that filters by the host's name (SNI), and exempt Apple's hosts there."},
	NotTLS: {"The answer is not TLS",
		"Look for a portal or a transparent proxy at this port, and exempt Apple's hosts there."},
	NoHTTP2: {"The other side does not speak HTTP/2",
		"Look for something that inspects TLS on the way: push by this port is HTTP/2 only."},
	NotHTTP: {"The answer is not HTTP",
		"Look for something at this port that does not know the protocol, and let it pass HTTP."},
	CaptivePortal: {"A sign-in page answers in the host's place",
		"Sign this machine in to the network, or exempt it at the portal."},
	NotNTP: {"The time is not told",
		"Let the firewall pass UDP to port 123 and the answers back, untouched."},
	SignIn: {"A proxy asks for a password (407)",
		"Exempt Apple's hosts from sign-in there: devices cannot answer for their system services."},
	Denied: {"A proxy denies it",
		"Change the rule that denies it (espalier explain HOST:PORT), or allow the destination at that proxy."},
	ProxyDown: {"The proxy cannot be reached",
		"See whether it runs and listens there (espalier status)."},
	ProxyFailed: {"The proxy fails",
		"See what its log says about the host."},
}

// Title says in a few words what a problem is.
func (p Problem) Title() string { return advice[p].title }

func good(note string) Finding { return Finding{State: OK, Note: note} }

// broken is the finding of a problem; by and detail must be clean.
func broken(step Step, p Problem, by, detail string) Finding {
	return Finding{State: Broken, Step: step, Problem: p, By: by, Detail: detail, Next: advice[p].next}
}

// failed says which problem err is, met at step.
func failed(step Step, err error) Finding {
	r := refusal.For(err)
	problem, by := problemOf(r.Type, r.Params), ""
	parent, ofParent := errors.AsType[*egress.ParentError](err)
	unresolved, ofName := errors.AsType[*lookup.Error](err)
	head, notTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case ofParent:
		step, problem, by = StepProxy, cmp.Or(statusProblems[parent.Status], ProxyFailed), "the parent proxy "+parent.Parent
	case ofName:
		step, err = StepName, unresolved.Err // whose name it is stands beside
	case problem == AddressGuard:
		step = StepName
	case notTLS && string(head.RecordHeader[:4]) == "HTTP":
		by = "something that speaks HTTP"
	case problem == TLSAlert && strings.Contains(err.Error(), tls.AlertError(noApplicationProtocol).Error()):
		problem = NoHTTP2
	case problem == "", problem == TimedOut && step == StepNTP:
		problem = cmp.Or(stepProblems[step], NotHTTP)
	}
	detail := strings.ReplaceAll(err.Error(), context.DeadlineExceeded.Error(), "no answer in time")
	return broken(step, problem, by, clean(detail))
}

// noApplicationProtocol is the alert of RFC 7301.
const noApplicationProtocol = 120

// problemOf is the problem of an error type of RFC 9209, which params make more precise;
// empty if the type does not tell.
func problemOf(kind, params string) Problem { return cmp.Or(problems[kind+params], problems[kind]) }

var problems = map[string]Problem{
	"dns_error":                   DNSFailed,
	`dns_error; rcode="NXDOMAIN"`: NoSuchName,
	`dns_error; rcode="NOERROR"`:  NoAddress,
	"dns_timeout":                 DNSTimeout,
	"destination_ip_prohibited":   AddressGuard,
	"destination_ip_unroutable":   Unroutable,
	"connection_refused":          Refused,
	"connection_terminated":       Reset,
	"connection_timeout":          TimedOut,
	"http_response_timeout":       TimedOut,
	"http_request_denied":         Denied,
	"tls_alert_received":          TLSAlert,
	"tls_protocol_error":          NotTLS,
}

// statusProblems are problems by the status of a proxy's answer, 0 without one. Others
// are ProxyFailed.
var statusProblems = map[int]Problem{
	0: ProxyDown, http.StatusProxyAuthRequired: SignIn, http.StatusForbidden: Denied,
}

// stepProblems are those of errors that tell no more than the step.
var stepProblems = map[Step]Problem{StepNTP: NotNTP, StepTLS: NotTLS, StepProxy: ProxyFailed}

// maxText bounds what is repeated of what somebody on the way has written.
const maxText = 200

// clean makes text of the network fit for a terminal.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if runes := []rune(strings.TrimSpace(text)); len(runes) > maxText {
		return string(runes[:maxText]) + "…"
	}
	return strings.TrimSpace(text)
}
