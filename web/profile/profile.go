// Package profile makes configuration profiles for Apple devices: what points
// them at the PAC script, and the root certificate that they must trust for TLS
// interception. The keys are those of Apple's device management schema.
//
// The same profile has the same identifiers and UUIDs every time, whatever has
// changed in it, so that a device replaces the one it has.
package profile

import (
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"howett.net/plist"
)

// ContentType is the media type that devices install from.
const ContentType = "application/x-apple-aspen-config"

// A Payload is one part of a profile.
type Payload struct {
	kind  string // PayloadType
	name  string // part of the identifiers; differs where a device may have several
	title string
	keys  map[string]any
}

// namespace is that of the version 5 UUIDs (RFC 9562) of identifiers. It was
// drawn once, and must never change.
var namespace = uuid.MustParse("8f0c1d5e-6d0a-4c1b-9a53-2f7be1a0c6d4")

// id is the UUID of what has the identifier s.
func id(s string) string {
	return strings.ToUpper(uuid.NewSHA1(namespace, []byte(s)).String())
}

// Options are what may be chosen for a profile as a whole.
type Options struct {
	// Title and Description are what people read on the device.
	Title, Description string
	// Locked keeps people from removing the profile. Supervised devices heed it.
	Locked bool
}

// Profile returns the property list of a profile with payloads, signed where the
// issuer signs. name tells the issuer's profiles apart; a device replaces the one
// of the same name.
func (i *Issuer) Profile(name string, o Options, payloads ...Payload) ([]byte, error) {
	identifier := i.identifier + "." + name
	content := make([]map[string]any, len(payloads))
	for n, p := range payloads {
		part := identifier + "." + p.name
		dict := map[string]any{
			"PayloadType": p.kind, "PayloadVersion": 1, "PayloadIdentifier": part, "PayloadUUID": id(part),
			"PayloadDisplayName": p.title, "PayloadOrganization": i.organization,
		}
		for key, value := range p.keys {
			dict[key] = value
		}
		content[n] = dict
	}
	top := map[string]any{
		"PayloadType": "Configuration", "PayloadVersion": 1, "PayloadIdentifier": identifier, "PayloadUUID": id(identifier),
		"PayloadDisplayName": o.Title, "PayloadOrganization": i.organization, "PayloadScope": "System",
		"PayloadContent": content,
	}
	if o.Description != "" {
		top["PayloadDescription"] = o.Description
	}
	if o.Locked {
		top["PayloadRemovalDisallowed"] = true
	}
	data, err := plist.MarshalIndent(top, plist.XMLFormat, "\t")
	if err != nil {
		return nil, fmt.Errorf("profile %s: %w", identifier, err)
	}
	return i.sign(append(data, '\n'))
}

// ProxyOptions are what may be chosen beside the PAC script's URL.
type ProxyOptions struct {
	// Fallback lets devices connect directly where the script cannot be fetched.
	Fallback bool
	// CaptiveLogin lets them pass the proxy by for the sign-in page of a network.
	CaptiveLogin bool
}

// GlobalProxy makes a supervised device use the PAC script at pacURL in every
// network: com.apple.proxy.http.global.
func GlobalProxy(pacURL string, o ProxyOptions) Payload {
	return Payload{kind: "com.apple.proxy.http.global", name: "proxy", title: "Proxy", keys: map[string]any{
		"ProxyType": "Auto", "ProxyPACURL": pacURL,
		"ProxyPACFallbackAllowed": o.Fallback, "ProxyCaptiveLoginAllowed": o.CaptiveLogin,
	}}
}

// WiFi is a wireless network, on which devices use a PAC script.
type WiFi struct {
	SSID string
	// Encryption is one of Encryptions.
	Encryption string
	Password   string
	Hidden     bool
	PACURL     string
	// Fallback is as in ProxyOptions.
	Fallback bool
}

// Encryptions are the values of WiFi.Encryption.
var Encryptions = []string{"None", "Any", "WEP", "WPA", "WPA2", "WPA3"}

// Payload is com.apple.wifi.managed.
func (w WiFi) Payload() Payload {
	keys := map[string]any{
		"SSID_STR": w.SSID, "HIDDEN_NETWORK": w.Hidden, "AutoJoin": true, "EncryptionType": w.Encryption,
		"ProxyType": "Auto", "ProxyPACURL": w.PACURL, "ProxyPACFallbackAllowed": w.Fallback,
	}
	if w.Password != "" {
		keys["Password"] = w.Password
	}
	// A UUID of the name, since it may hold anything.
	return Payload{kind: "com.apple.wifi.managed", name: "wifi." + strings.ToLower(id(w.SSID)), title: "Wi-Fi " + w.SSID, keys: keys}
}

// Root makes a device know a root certificate: com.apple.security.root. It trusts
// it for TLS where an MDM server has installed the profile; otherwise a person has
// to say so in the settings.
func Root(cert *x509.Certificate) Payload {
	return Payload{kind: "com.apple.security.root", name: "root", title: cert.Subject.CommonName, keys: map[string]any{
		"PayloadContent": cert.Raw, "PayloadCertificateFileName": "espalier-root.cer",
	}}
}
