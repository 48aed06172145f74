package profile

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Kinds of profiles.
const (
	KindGlobalProxy = "global-proxy" // the PAC script in every network; supervised devices
	KindWiFi        = "wifi"         // a wireless network with the PAC script
	KindCA          = "ca"           // the root of the interception CA
	KindBundle      = "bundle"       // the root, where there is one, and the PAC script
)

// Kinds are all of them.
var Kinds = []string{KindGlobalProxy, KindWiFi, KindCA, KindBundle}

// A Request says which profile is wanted.
type Request struct {
	Kind string
	// Site is the site that PACURL is for; empty outside sites. Profiles of
	// different sites stand beside each other.
	Site   string
	PACURL string
	Proxy  ProxyOptions
	// WiFi is needed for KindWiFi; in a bundle it takes the place of the global
	// proxy. Its PACURL and Fallback are set from those above.
	WiFi *WiFi
	// Root is nil where there is no interception CA.
	Root *x509.Certificate
	// Locked is as in Options.
	Locked bool
}

// ErrNoRoot is returned for KindCA where there is no root.
var ErrNoRoot = errors.New("there is no CA for TLS interception (`espalier ca init` makes one)")

// Make returns the profile that r asks for.
func (i *Issuer) Make(r Request) ([]byte, error) {
	if !slices.Contains(Kinds, r.Kind) {
		return nil, fmt.Errorf("%q is no kind of profile (allowed: %s)", r.Kind, strings.Join(Kinds, ", "))
	}
	o := Options{Locked: r.Locked}
	if r.Kind == KindCA {
		if r.Root == nil {
			return nil, ErrNoRoot
		}
		o.Title = i.organization + ": root certificate"
		o.Description = "Lets this network look into TLS connections that are not Apple's."
		return i.Profile(KindCA, o, Root(r.Root))
	}
	if err := checkPACURL(r.PACURL); err != nil {
		return nil, err
	}
	name, proxy := r.Kind, GlobalProxy(r.PACURL, r.Proxy)
	if r.WiFi != nil && r.Kind != KindGlobalProxy {
		w := *r.WiFi
		if err := w.Validate(); err != nil {
			return nil, err
		}
		w.PACURL, w.Fallback = r.PACURL, r.Proxy.Fallback
		proxy = w.Payload()
	} else if r.Kind == KindWiFi {
		return nil, errors.New("ssid: missing (the network's name)")
	}
	payloads := []Payload{proxy}
	if r.Kind == KindBundle && r.Root != nil {
		payloads = []Payload{Root(r.Root), proxy}
	}
	if r.Site != "" {
		name += "." + r.Site
	}
	if r.Kind == KindWiFi { // a device may have several networks
		name += "." + strings.ToLower(id(r.WiFi.SSID))
	}
	o.Title = i.organization + ": proxy"
	if r.Kind == KindWiFi {
		o.Title = i.organization + ": Wi-Fi " + r.WiFi.SSID
	}
	o.Description = "Sends this device's traffic by the script at " + r.PACURL
	return i.Profile(name, o, payloads...)
}

// Validate says what no device would take. Errors begin with what is at fault.
func (w WiFi) Validate() error {
	switch {
	case w.SSID == "" || len(w.SSID) > 32:
		return fmt.Errorf("ssid: %q has %d bytes (allowed: 1 to 32)", w.SSID, len(w.SSID))
	case !slices.Contains(Encryptions, w.Encryption):
		return fmt.Errorf("encryption: %q is unknown (allowed: %s)", w.Encryption, strings.Join(Encryptions, ", "))
	case w.Encryption == "None" && w.Password != "":
		return errors.New("password: an open network has none")
	case strings.HasPrefix(w.Encryption, "WPA") && (len(w.Password) < 8 || len(w.Password) > 63 && !isKey(w.Password)):
		return errors.New("password: has to have 8 to 63 characters, or 64 hexadecimal digits")
	}
	return nil
}

// isKey reports whether a password of WPA is a key written out.
func isKey(password string) bool {
	return len(password) == 64 && strings.Trim(strings.ToLower(password), "0123456789abcdef") == ""
}

func checkPACURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("pac-url: %q is no http or https URL", s)
	}
	return nil
}
