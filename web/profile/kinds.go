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
	// Locked keeps people from removing the profile; supervised devices only.
	Locked bool
	// RemoveOn is when the device removes the profile by itself, to the second; zero:
	// never.
	RemoveOn time.Time
	// RemoveAfter is how long after its installation that is; 0: never. The earlier
	// of the two counts.
	RemoveAfter time.Duration
}

// ErrNoRoot is returned for KindCA if there is no root.
var ErrNoRoot = errors.New("there is no CA for TLS interception (`espalier ca init` makes one)")

// A RequestError says what is invalid in a Request. It begins with the name of the
// field at fault, as the flags of `espalier profile` have it.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }
func (e *RequestError) Unwrap() error { return e.Err }

// Make returns the profile that r asks for. Errors are ErrNoRoot, a *RequestError, or
// those of signing.
func (i *Issuer) Make(r Request) ([]byte, error) {
	if err := r.validateRemoval(i.now()); err != nil {
		return nil, &RequestError{err}
	}
	name, payloads, err := r.payloads()
	if errors.Is(err, ErrNoRoot) {
		return nil, err
	}
	if err != nil {
		return nil, &RequestError{err}
	}
	return i.plist(name, r, payloads)
}

func (r Request) validateRemoval(now time.Time) error {
	if !r.RemoveOn.IsZero() && !r.RemoveOn.After(now) {
		return fmt.Errorf("remove-on: %s is not in the future", r.RemoveOn.Format(time.RFC3339))
	}
	if r.RemoveAfter < 0 || r.RemoveAfter > 0 && r.RemoveAfter < time.Second {
		return fmt.Errorf("remove-after: invalid duration %s: must be 1s or more", r.RemoveAfter)
	}
	return nil
}

// payloads checks r. name is what tells its profile from others that a device has.
func (r Request) payloads() (name string, list []payload, err error) {
	name = r.Kind
	bundle := r.Kind == KindBundle
	switch {
	case !slices.Contains(Kinds, r.Kind):
		return "", nil, fmt.Errorf("kind: unknown kind %q (allowed: %s)", r.Kind, strings.Join(Kinds, ", "))
	case r.Kind == KindCA && r.Root == nil:
		return "", nil, ErrNoRoot
	case r.Kind == KindCA && r.Beside:
		name += "." + strings.ToLower(id(string(r.Root.Raw)))
	}
	if r.Kind == KindCA || bundle && r.Root != nil {
		list = append(list, rootPayload(r.Root))
	}
	if Scripted(r.Kind) {
		suffix, script, err := r.script()
		if err != nil {
			return "", nil, err
		}
		name, list = name+suffix, append(list, script...)
	}
	if r.Kind == KindDNS || bundle && r.DNS != nil {
		p, domains, err := r.DNS.payload()
		if err != nil {
			return "", nil, err
		}
		list = append(list, p)
		if len(domains) > 0 && !bundle { // a device may have one for each set of domains
			name += "." + strings.ToLower(id(strings.Join(domains, " ")))
		}
	}
	if r.Kind == KindRestrictions || r.NoPrivateRelay && bundle {
		list = append(list, noPrivateRelay())
	}
	return name, list, nil
}

// script are the payloads that lead to the PAC script, and what they add to the
// profile's name.
func (r Request) script() (suffix string, list []payload, err error) {
	u, err := httpurl.Parse(r.PACURL)
	if err != nil {
		return "", nil, fmt.Errorf("pac-url: invalid URL %q: %w", r.PACURL, err)
	}
	switch r.Site {
	case "":
	case "proxy", "root": // payloads have these names in the same place, and no two identifiers may be equal
		suffix = ".site." + r.Site
	default:
		suffix = "." + r.Site
	}
	switch {
	case r.Kind == KindNetworkProxy:
		return suffix, []payload{networkProxy(u.String(), r.Proxy)}, nil
	case r.Kind == KindGlobalProxy || r.Kind == KindBundle && r.WiFi == nil:
		return suffix, []payload{globalProxy(u.String(), r.Proxy)}, nil
	case r.WiFi == nil:
		return "", nil, errors.New("ssid: missing (the network's name)")
	}
	if err := r.WiFi.Validate(); err != nil {
		return "", nil, err
	}
	suffix += "." + strings.ToLower(id(r.WiFi.SSID)) // a device may have several networks
	return suffix, r.WiFi.payloads(u.String(), r.Proxy.Fallback), nil
}

// title and description are what people read on the device.
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

// ProxyOptions are what may be chosen beside the PAC script's URL.
type ProxyOptions struct {
	// Fallback lets devices connect directly while the script cannot be fetched.
	Fallback bool
	// CaptiveLogin lets devices bypass the proxy for a network's sign-in page.
	CaptiveLogin bool
}

// globalProxy makes a device use the PAC script at pacURL in every network:
// com.apple.proxy.http.global. iOS, iPadOS, tvOS and visionOS require supervision,
// macOS does not.
func globalProxy(pacURL string, o ProxyOptions) payload {
	return payload{kind: "com.apple.proxy.http.global", name: "proxy", title: "Proxy", keys: map[string]any{
		"ProxyType": "Auto", "ProxyPACURL": pacURL,
		"ProxyPACFallbackAllowed": o.Fallback, "ProxyCaptiveLoginAllowed": o.CaptiveLogin,
	}}
}

// networkProxy makes a Mac use the PAC script at pacURL on its network services:
// com.apple.SystemConfiguration.
func networkProxy(pacURL string, o ProxyOptions) payload {
	number := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return payload{kind: "com.apple.SystemConfiguration", name: "payload.network-proxy", title: "Network proxy", keys: map[string]any{
		"Proxies": map[string]any{
			"ProxyAutoConfigEnable": 1, "ProxyAutoConfigURLString": pacURL,
			"FallBackAllowed": number(o.Fallback), "ProxyCaptiveLoginAllowed": number(o.CaptiveLogin),
		},
	}}
}

// noPrivateRelay switches iCloud Private Relay off: com.apple.applicationaccess.
// iOS, iPadOS and visionOS require supervision, macOS does not.
func noPrivateRelay() payload {
	return payload{kind: "com.apple.applicationaccess", name: "payload.restrictions", title: "Private Relay off", keys: map[string]any{
		"allowCloudPrivateRelay": false,
	}}
}
