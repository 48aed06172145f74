package exchange

import (
	"crypto/x509"

	"espalier/policy"
	"espalier/policy/auth"
	"espalier/proxy/egress"
	"espalier/proxy/inspect"
	"espalier/proxy/trust"
)

// State is what a reload replaces. Requests in progress and open tunnels keep the
// one they began with.
type State struct {
	Policy *policy.Policy
	Dialer *egress.Dialer
	Auth   *auth.Auth // nil: there are no users
	// Contact is shown to users whose request is refused; empty: none.
	Contact string
	// SetupURL is where users find the CA's certificate, and how to install it; empty: it is
	// not known.
	SetupURL string
	// Leaves are the certificates for intercepted hosts. They must be set if the
	// Policy may say inspect.
	Leaves *inspect.Leaves
	// Exceptions learns of clients that cannot be intercepted; nil: it is not noted.
	Exceptions *inspect.Exceptions
	// Roots are the CAs of intercepted origins; nil: those of the system. Trust verifies
	// origins by them; nil: without fetching what they do not send.
	Roots *x509.CertPool
	Trust *trust.Verifier
}

// Route is how origins are reached.
func (st *State) Route() egress.Route { return egress.Route{Dialer: st.Dialer, Trust: st.Trust} }
