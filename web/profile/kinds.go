package profile

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"espalier/web/httpurl"
)

// Kinds of profiles.
const (
	KindGlobalProxy  = "global-proxy"  // the PAC script in every network
	KindWiFi         = "wifi"          // a wireless network with the PAC script
	KindNetworkProxy = "network-proxy" // the PAC script on a Mac
	KindCA           = "ca"            // the root of the interception CA
	KindDNS          = "dns"           // an encrypted name server
	KindRestrictions = "restrictions"  // Private Relay off
	KindBundle       = "bundle"        // the root, if there is one, and the PAC script
)

// Kinds are all of them.
var Kinds = []string{KindGlobalProxy, KindWiFi, KindNetworkProxy, KindCA, KindDNS, KindRestrictions, KindBundle}

// Scripted reports whether profiles of a kind hold the URL of the PAC script.
func Scripted(kind string) bool {
	return kind != KindCA && kind != KindDNS && kind != KindRestrictions
}

// A Request says which profile is wanted.
type Request struct {
	Kind string
	// Site is the site that PACURL is for; empty outside sites. Profiles of
	// different sites have different identifiers.
	Site   string
	PACURL string
	Proxy  ProxyOptions
	// WiFi is needed for KindWiFi; in a bundle it takes the place of the global
	// proxy.
	WiFi *WiFi
	// DNS is needed for KindDNS; a bundle may have it.
	DNS *DNS
	// NoPrivateRelay adds the restriction of KindRestrictions to a bundle.
	NoPrivateRelay bool
	// Root is nil if there is no interception CA.
	Root *x509.Certificate
	// Beside gives a KindCA an identifier of its root's own, so that a device keeps
	// the root of another profile while a CA is replaced.
	Beside bool
	// Locked, RemoveOn and RemoveAfter are as in Options.
	Locked      bool
	RemoveOn    time.Time
	RemoveAfter time.Duration
}

// ErrNoRoot is returned for KindCA if there is no root.
var ErrNoRoot = errors.New("there is no CA for TLS interception (`espalier ca init` makes one)")

// A RequestError says what is invalid in a Request. It begins with the name of the
// field at fault, as the flags of `espalier profile` have it.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }
func (e *RequestError) Unwrap() error { return e.Err }

// Make returns the profile that r asks for. Errors are ErrNoRoot, a *RequestError,
// or those of Profile.
func (i *Issuer) Make(r Request) ([]byte, error) {
	o := Options{Locked: r.Locked, RemoveOn: r.RemoveOn, RemoveAfter: r.RemoveAfter}
	if err := o.validate(i.now()); err != nil {
		return nil, &RequestError{err}
	}
	name, payloads, err := r.payloads()
	if errors.Is(err, ErrNoRoot) {
		return nil, err
	}
	if err != nil {
		return nil, &RequestError{err}
	}
	o.Title, o.Description = i.organization+": "+r.title(), r.description()
	return i.Profile(name, o, payloads...)
}

// payloads checks r. name is what tells its profile from others that a device has.
func (r Request) payloads() (name string, list []Payload, err error) {
	name = r.Kind
	switch r.Kind {
	case KindCA:
		if r.Root == nil {
			return "", nil, ErrNoRoot
		}
		if r.Beside {
			name += "." + strings.ToLower(id(string(r.Root.Raw)))
		}
		return name, []Payload{Root(r.Root)}, nil
	case KindRestrictions:
		return name, []Payload{NoPrivateRelay()}, nil
	case KindDNS:
		return r.dns()
	case KindGlobalProxy, KindNetworkProxy, KindWiFi, KindBundle:
	default:
		return "", nil, fmt.Errorf("kind: unknown kind %q (allowed: %s)", r.Kind, strings.Join(Kinds, ", "))
	}
	u, err := httpurl.Parse(r.PACURL)
	if err != nil {
		return "", nil, fmt.Errorf("pac-url: invalid URL %q: %w", r.PACURL, err)
	}
	if r.Site != "" {
		name += "." + sitePart(r.Site)
	}
	switch {
	case r.Kind == KindNetworkProxy:
		return name, []Payload{NetworkProxy(u.String(), r.Proxy)}, nil
	case r.Kind == KindGlobalProxy || r.Kind == KindBundle && r.WiFi == nil:
		list = []Payload{GlobalProxy(u.String(), r.Proxy)}
	case r.WiFi == nil:
		return "", nil, errors.New("ssid: missing (the network's name)")
	default:
		w := *r.WiFi
		if err := w.Validate(); err != nil {
			return "", nil, err
		}
		w.pacURL, w.fallback = u.String(), r.Proxy.Fallback
		list = w.payloads()
		name += "." + strings.ToLower(id(w.SSID)) // a device may have several networks
	}
	if r.Kind != KindBundle {
		return name, list, nil
	}
	if r.Root != nil {
		list = slices.Concat([]Payload{Root(r.Root)}, list)
	}
	if r.DNS != nil {
		_, dns, err := r.dns()
		if err != nil {
			return "", nil, err
		}
		list = append(list, dns...)
	}
	if r.NoPrivateRelay {
		list = append(list, NoPrivateRelay())
	}
	return name, list, nil
}

// dns is the profile of r.DNS alone. A device may have one for each set of domains.
func (r Request) dns() (name string, list []Payload, err error) {
	if r.DNS == nil {
		return "", nil, errors.New("dns-server: missing (https://NAME/dns-query or tls://NAME)")
	}
	p, err := r.DNS.payload()
	if err != nil {
		return "", nil, err
	}
	name = KindDNS
	if domains, _ := r.DNS.domains(); len(domains) > 0 { // payload has checked them
		name += "." + strings.ToLower(id(strings.Join(domains, " ")))
	}
	return name, []Payload{p}, nil
}

// sitePart is a site's part of identifiers. Payloads have the names "proxy" and
// "root" in the same place, and no two identifiers may be equal.
func sitePart(site string) string {
	if site == "proxy" || site == "root" {
		return "site." + site
	}
	return site
}

func (r Request) title() string {
	switch r.Kind {
	case KindCA:
		return "root certificate"
	case KindWiFi:
		return "Wi-Fi " + r.WiFi.SSID
	case KindDNS:
		return "DNS"
	case KindRestrictions:
		return "Private Relay off"
	}
	return "proxy"
}

func (r Request) description() string {
	switch r.Kind {
	case KindCA:
		return "Lets this network look into TLS connections that are not Apple's."
	case KindDNS:
		return "Makes this device ask the name server " + r.DNS.Server
	case KindRestrictions:
		return "Switches iCloud Private Relay off."
	}
	return "Sends this device's traffic by the script at " + r.PACURL
}
