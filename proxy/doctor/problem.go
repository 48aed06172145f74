package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"unicode"

	"espalier/proxy/egress"
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
	step, problem, by := classify(step, err)
	if lookup, ok := errors.AsType[*egress.LookupError](err); ok && by == "" {
		err = lookup.Err // whose name it is stands beside
	}
	detail := strings.ReplaceAll(err.Error(), context.DeadlineExceeded.Error(), "no answer in time")
	return broken(step, problem, by, clean(detail))
}

func classify(step Step, err error) (_ Step, _ Problem, by string) {
	if parent, ok := errors.AsType[*egress.ParentError](err); ok {
		return StepProxy, cmp.Or(statusProblems[parent.Status], ProxyFailed), "the parent proxy " + parent.Parent
	}
	if _, ok := errors.AsType[*egress.ForbiddenError](err); ok {
		return StepName, AddressGuard, ""
	}
	if lookup, ok := errors.AsType[*egress.LookupError](err); ok {
		return StepName, problemOfLookup(lookup), ""
	}
	if head, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if string(head.RecordHeader[:4]) == "HTTP" {
			return step, NotTLS, "something that speaks HTTP"
		}
		return step, NotTLS, ""
	}
	problem := cmp.Or(unclear[step], NotHTTP)
	switch {
	case isAlert(err):
		problem = TLSAlert
		if strings.Contains(err.Error(), tls.AlertError(noApplicationProtocol).Error()) {
			problem = NoHTTP2
		}
	case isTimeout(err):
		if step != StepNTP {
			problem = TimedOut
		}
	default:
		for _, c := range causes {
			if errors.Is(err, c.err) {
				return step, c.problem, ""
			}
		}
	}
	return step, problem, ""
}

// unclear are the problems at steps of which an error says nothing more.
var unclear = map[Step]Problem{StepNTP: NotNTP, StepTLS: NotTLS, StepProxy: ProxyFailed}

var causes = []struct {
	err     error
	problem Problem
}{
	{syscall.ECONNREFUSED, Refused},
	{syscall.ENETUNREACH, Unroutable}, {syscall.EHOSTUNREACH, Unroutable}, {syscall.EADDRNOTAVAIL, Unroutable},
	{syscall.ECONNRESET, Reset}, {syscall.EPIPE, Reset}, {io.EOF, Reset}, {io.ErrUnexpectedEOF, Reset},
}

func problemOfLookup(err *egress.LookupError) Problem {
	switch {
	case err.NoAddress():
		return NoAddress
	case err.NotFound():
		return NoSuchName
	case isTimeout(err):
		return DNSTimeout
	}
	return DNSFailed
}

// noApplicationProtocol is the alert of RFC 7301.
const noApplicationProtocol = 120

// isAlert reports whether err is an alert of the other side.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

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
