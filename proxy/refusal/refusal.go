// Package refusal says how a client is told that the proxy does not pass its
// request on: the status, the error type of RFC 9209, and a short text.
package refusal

// A Refusal is an answer that the proxy gives in place of the origin's. It is the error
// of what is refused.
type Refusal struct {
	Status int
	// Type is the error type of RFC 9209, section 2.3. It is the label of
	// espalier_refusals_total.
	Type string
	// Params are the parameters of Type, for instance `; rcode="NXDOMAIN"`.
	Params string
	// Text is what the client is told. It never repeats what the client or the
	// network sent.
	Text string
}

// Error implements error.
func (r Refusal) Error() string { return r.Text }

// IsLimit reports whether r tells of one of the proxy's limits. The connection
// is closed then, to make room.
func (r Refusal) IsLimit() bool { return r.Type == Busy.Type }

// Refusals by policy, and of requests that are invalid.
var (
	Denied      = Refusal{403, "http_request_denied", "", "This network's policy does not allow this destination."}
	Client      = Refusal{403, "http_request_denied", "", "This address may not use this proxy."}
	WithoutCA   = Refusal{403, "http_request_denied", "", "This device does not trust the certificate that this network inspects encrypted connections with, so that most sites fail. Install the certificate. If you have, open any https site, then try again."}
	Name        = Refusal{403, "http_request_error", "", "The destination is not a valid host and port."}
	Port        = Refusal{403, "http_request_denied", "", "This proxy does not connect to this port."}
	Malformed   = Refusal{400, "http_request_error", "", "The request is not valid HTTP, or larger than this proxy takes."}
	Body        = Refusal{400, "http_request_error", "", "The request body does not match its declared length."}
	SlowBody    = Refusal{408, "http_request_error", "", "The request body did not arrive in time."}
	Method      = Refusal{405, "http_request_denied", "", "This proxy does not carry TRACE."}
	SignIn      = Refusal{407, "http_request_denied", "", "This network asks you to sign in."}
	Throttled   = Refusal{429, "http_request_denied", "", "Too many sign-ins have failed. Try again in a moment."}
	NoSignIn    = Refusal{503, "proxy_internal_error", "", "This network cannot check passwords at the moment."}
	Scheme      = Refusal{501, "http_protocol_error", "", "This proxy carries http URLs, and everything else by CONNECT."}
	Misdirected = Refusal{421, "http_request_error", "", "This connection was opened for another destination."}
	Full        = Refusal{503, "connection_limit_reached", "", "This proxy has as many open tunnels as it can carry."}
	ClientFull  = Refusal{503, "connection_limit_reached", "", "This client has as many open connections as this proxy allows."}
	Busy        = Refusal{503, "connection_limit_reached", "", "This proxy is busy. Try again in a while."}
	Loop        = Refusal{502, "proxy_loop_detected", "", "The request came back to this proxy from its parent proxy."}
)

// Refusals because the origin or a parent could not be reached.
var (
	Address   = Refusal{403, "destination_ip_prohibited", "", "This destination's address may not be reached through this proxy."}
	NotFound  = Refusal{502, "dns_error", `; rcode="NXDOMAIN"`, "The destination's name does not exist."}
	NoAddress = Refusal{502, "dns_error", `; rcode="NOERROR"`, "The destination's name has no address."}
	Lookup    = Refusal{502, "dns_error", "", "The destination's name could not be looked up."}
	SlowDNS   = Refusal{504, "dns_timeout", "", "The destination's name could not be looked up in time."}
	Slow      = Refusal{504, "connection_timeout", "", "The destination did not answer in time."}
	Refused   = Refusal{502, "connection_refused", "", "The destination refused the connection."}
	NoRoute   = Refusal{502, "destination_ip_unroutable", "", "There is no route to the destination."}
	Reset     = Refusal{502, "connection_terminated", "", "The destination closed the connection before it had answered."}
	SlowReply = Refusal{504, "http_response_timeout", "", "The destination did not answer the request in time."}
	BadReply  = Refusal{502, "http_protocol_error", "", "The destination's answer is not valid HTTP."}

	ByParent  = Refusal{403, "http_request_denied", "", "The parent proxy does not allow this destination."}
	Parent    = Refusal{502, "proxy_configuration_error", "", "The parent proxy does not accept this proxy's requests."}
	NoParent  = Refusal{502, "destination_unavailable", "", "The parent proxy could not be reached, or gave no valid answer."}
	Parent502 = Refusal{502, "destination_unavailable", "", "The parent proxy could not reach the destination."}
	Parent503 = Refusal{503, "destination_unavailable", "", "The parent proxy could not reach the destination."}
	Parent504 = Refusal{504, "connection_timeout", "", "The parent proxy, or the destination behind it, did not answer in time."}

	Expired           = Refusal{502, "tls_certificate_error", "", "The destination's certificate has expired, or is not valid yet."}
	OtherName         = Refusal{502, "tls_certificate_error", "", "The destination's certificate is for another name."}
	UnknownCA         = Refusal{502, "tls_certificate_error", "", "The destination's certificate is from an authority that this network does not know."}
	Certificate       = Refusal{502, "tls_certificate_error", "", "The destination's certificate is not valid."}
	NoIntermediate    = Refusal{502, "tls_certificate_error", "", "The destination did not send the certificate that its own was issued by, and the proxy could not fetch it."}
	Revoked           = Refusal{502, "tls_certificate_error", "", "The destination's certificate was revoked."}
	NoStatus          = Refusal{502, "tls_certificate_error", "", "The destination's certificate demands proof that it was not revoked, and the destination sent none."}
	ClientCertificate = Refusal{502, "tls_alert_received", "", "The destination requires a client certificate, which the proxy cannot present in place of your device. If your device has one, try again; otherwise ask for the destination to be exempt from inspection."}
	TLSAlert          = Refusal{502, "tls_alert_received", "", "The destination refused the TLS connection."}
	OldTLS            = Refusal{502, "tls_protocol_error", "", "The destination supports only outdated TLS: older than 1.2, or without forward secrecy."}
	TLS               = Refusal{502, "tls_protocol_error", "", "The destination does not speak valid TLS."}
)
