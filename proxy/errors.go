package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"syscall"

	"espalier/proxy/egress"
)

// ruleGuard is the rule that stands in records of requests that the address
// guard refused.
const ruleGuard = "address-guard"

// A refusal is an answer that the proxy gives by itself, in place of the
// destination's.
type refusal struct {
	status int
	// proxyError is the error type of RFC 9209, with its parameters, for the
	// Proxy-Status header.
	proxyError string
	// text is what the client is told. It never repeats what the client sent or
	// what the network said.
	text string
}

var (
	refuseDenied     = refusal{403, "http_request_denied", "This network's policy does not allow this destination."}
	refuseClient     = refusal{403, "http_request_denied", "This address may not use this proxy."}
	refuseName       = refusal{403, "http_request_error", "The destination is not a valid host and port."}
	refuseMalformed  = refusal{400, "http_request_error", "The request is not valid HTTP, or larger than this proxy takes."}
	refuseBody       = refusal{400, "http_request_error", "The request's body is not what was announced."}
	refuseSlowBody   = refusal{408, "http_request_error", "The request's body did not arrive in time."}
	refuseMethod     = refusal{405, "http_request_denied", "This proxy does not carry TRACE."}
	refuseAddress    = refusal{403, "destination_ip_prohibited", "This destination's address may not be reached through this proxy."}
	refuseSignIn     = refusal{407, "http_request_denied", "This network asks you to sign in."}
	refuseDamped     = refusal{429, "http_request_denied", "Too many sign-ins have failed. Try again in a moment."}
	refuseNoSignIn   = refusal{503, "proxy_internal_error", "This network cannot check passwords at the moment."}
	refuseScheme     = refusal{501, "http_protocol_error", "This proxy carries http URLs, and everything else by CONNECT."}
	refuseFull       = refusal{503, "connection_limit_reached", "This proxy has as many open tunnels as it can carry."}
	refuseClientFull = refusal{503, "connection_limit_reached", "This client has as many open tunnels as this proxy allows."}
	refuseBusy       = refusal{503, "connection_limit_reached", "This proxy is busy. Try again in a while."}
	refuseNotFound   = refusal{502, `dns_error; rcode="NXDOMAIN"`, "The destination's name does not exist."}
	refuseNoAddress  = refusal{502, `dns_error; rcode="NOERROR"`, "The destination's name has no address."}
	refuseLookup     = refusal{502, "dns_error", "The destination's name could not be looked up."}
	refuseSlowDNS    = refusal{504, "dns_timeout", "The destination's name could not be looked up in time."}
	refuseSlow       = refusal{504, "connection_timeout", "The destination did not answer in time."}
	refuseRefused    = refusal{502, "connection_refused", "The destination refused the connection."}
	refuseUnroute    = refusal{502, "destination_ip_unroutable", "There is no way to the destination's address from here."}
	refuseReset      = refusal{502, "connection_terminated", "The destination closed the connection before it had answered."}
	refuseSlowReply  = refusal{504, "http_response_timeout", "The destination did not answer the request in time."}
	refuseByParent   = refusal{403, "http_request_denied", "The parent proxy does not allow this destination."}
	refuseParent     = refusal{502, "proxy_configuration_error", "The parent proxy does not accept this proxy's requests."}
	refuseNoParent   = refusal{502, "destination_unavailable", "The parent proxy could not be reached, or gave no valid answer."}
	refuseParent502  = refusal{502, "destination_unavailable", "The parent proxy could not reach the destination."}
	refuseParent503  = refusal{503, "destination_unavailable", "The parent proxy could not reach the destination."}
	refuseParent504  = refusal{504, "connection_timeout", "The parent proxy, or the destination behind it, did not answer in time."}
	refuseLoop       = refusal{502, "proxy_loop_detected", "The request came back to this proxy from its parent proxy."}
	refuseBadReply   = refusal{502, "http_protocol_error", "The destination's answer is not valid HTTP."}
)

// isTimeout reports whether err says that something took too long.
func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

// refusalFor says how a client is told of an error on the way to the
// destination.
func refusalFor(err error) refusal {
	var forbidden *egress.ForbiddenError
	var lookup *egress.LookupError
	var parent *egress.ParentError
	timeout := isTimeout(err)
	var upload *uploadError
	if e := limited(err); e != nil {
		return e.refusal()
	}
	switch {
	case errors.As(err, &upload) && timeout:
		return refuseSlowBody
	case errors.As(err, &upload):
		return refuseBody
	case errors.As(err, &forbidden):
		return refuseAddress
	case errors.Is(err, egress.ErrLoop):
		return refuseLoop
	case errors.As(err, &parent):
		return refusalOfParent(parent.Status, timeout)
	case errors.As(err, &lookup) && lookup.NoAddress():
		return refuseNoAddress
	case errors.As(err, &lookup) && lookup.NotFound():
		return refuseNotFound
	case errors.As(err, &lookup) && timeout:
		return refuseSlowDNS
	case errors.As(err, &lookup):
		return refuseLookup
	case errors.Is(err, errReplyTimeout):
		return refuseSlowReply
	case isTLS(err):
		return refusalOfTLS(err)
	case timeout:
		return refuseSlow
	case errors.Is(err, syscall.ECONNREFUSED):
		return refuseRefused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return refuseUnroute
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return refuseReset
	}
	return refuseBadReply
}

// refusalOfParent is what a client is told where a parent answered with status,
// 0 where it did not. A parent's 407 is never the client's: it would be asked
// for a password that it does not have.
func refusalOfParent(status int, timeout bool) refusal {
	switch {
	case status == 0 && !timeout:
		return refuseNoParent
	case status == http.StatusForbidden:
		return refuseByParent
	case status == http.StatusBadGateway:
		return refuseParent502
	case status == http.StatusServiceUnavailable:
		return refuseParent503
	case status == http.StatusGatewayTimeout, status == 0:
		return refuseParent504
	}
	return refuseParent
}

// isLimit reports whether r tells of one of the proxy's limits. The connection
// is closed then, to make room.
func (r refusal) isLimit() bool { return r.proxyError == refuseFull.proxyError }

// errReplyTimeout is set as the cause where a destination takes a request and
// does not begin to answer.
var errReplyTimeout = errors.New("no answer to the request in time")
