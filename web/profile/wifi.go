package profile

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"espalier/policy"
)

// WiFi is a wireless network on which devices use a PAC script:
// com.apple.wifi.managed.
type WiFi struct {
	SSID string
	// Encryption is one of Encryptions.
	Encryption string
	// Password is empty for an open network and with 802.1X.
	Password string
	Hidden   bool
	// FixedMAC makes devices join with their hardware address, not a random one.
	FixedMAC bool
	// EAP is nil where the network has no 802.1X.
	EAP *EAP
}

// Encryptions are the values of WiFi.Encryption.
var Encryptions = []string{"None", "Any", "WEP", "WPA", "WPA2", "WPA3"}

// EAP says how a device signs in to a network with 802.1X.
type EAP struct {
	// Methods are those that the device accepts, of EAPMethods; at least one.
	Methods []string
	// UserName and Password are for ttls and peap; the device asks for what is empty.
	UserName, Password string
	// OuterIdentity is the name that ttls and peap send outside TLS; empty: UserName.
	OuterIdentity string
	// Inner is what ttls signs in by within TLS, of InnerMethods; empty: MSCHAPv2.
	Inner string
	// ServerNames are the names in certificates of RADIUS servers that the device
	// trusts; * stands for a part. Roots are the certificates that sign these. One of
	// the two is needed, or people would decide which server to trust.
	ServerNames []string
	Roots       []*x509.Certificate
	// Identity is the certificate and key (PKCS #12) that tls needs; ttls and peap may
	// have it. IdentityPassword opens it; empty: the device asks when it installs the
	// profile.
	Identity         []byte
	IdentityPassword string
}

// EAPMethods are the values of EAP.Methods.
var EAPMethods = []string{"tls", "ttls", "peap"}

// eapTypes are the numbers that IANA gives EAPMethods.
var eapTypes = map[string]int{"tls": 13, "ttls": 21, "peap": 25}

// InnerMethods are the values of EAP.Inner.
var InnerMethods = []string{"PAP", "CHAP", "MSCHAP", "MSCHAPv2", "EAP"}

// Validate returns an error for what devices would refuse or apply to no network.
// It begins with the name of the field at fault.
func (w WiFi) Validate() error {
	if w.SSID == "" {
		return errors.New("ssid: missing (the network's name)")
	}
	if err := checkText(w.SSID, 32, false); err != nil {
		return fmt.Errorf("ssid: %w", err)
	}
	if !slices.Contains(Encryptions, w.Encryption) {
		return fmt.Errorf("encryption: unknown encryption %q (allowed: %s)", w.Encryption, strings.Join(Encryptions, ", "))
	}
	if err := checkText(w.Password, maxText, true); err != nil {
		return fmt.Errorf("password: %w", err)
	}
	if w.EAP != nil {
		if w.Password != "" {
			return errors.New("password: a network with 802.1X has none; it is the user's (eap-user)")
		}
		if w.Encryption == "None" || w.Encryption == "WEP" {
			return fmt.Errorf("encryption: 802.1X needs WPA, WPA2, WPA3 or Any, not %s", w.Encryption)
		}
		return w.EAP.validate()
	}
	switch w.Encryption {
	case "None":
		if w.Password != "" {
			return errors.New("password: an open network has none")
		}
	case "WEP":
		if n := len(w.Password); n != 5 && n != 13 && (n != 10 && n != 26 || !isHex(w.Password)) {
			return errors.New("password: must have 5 or 13 characters, or 10 or 26 hexadecimal digits")
		}
	case "WPA", "WPA2", "WPA3":
		if n := len(w.Password); n < 8 || n > 64 || n == 64 && !isHex(w.Password) {
			return errors.New("password: must have 8 to 63 characters, or 64 hexadecimal digits")
		}
	}
	return nil
}

func (e *EAP) validate() error {
	if len(e.Methods) == 0 {
		return fmt.Errorf("eap: missing (one or more of %s)", strings.Join(EAPMethods, ", "))
	}
	for _, m := range e.Methods {
		if !slices.Contains(EAPMethods, m) {
			return fmt.Errorf("eap: unknown method %q (allowed: %s)", m, strings.Join(EAPMethods, ", "))
		}
	}
	tunnelled := slices.Contains(e.Methods, "ttls") || slices.Contains(e.Methods, "peap")
	for _, text := range []struct {
		field, value string
		secret       bool
	}{
		{"eap-user", e.UserName, false}, {"password", e.Password, true}, {"eap-outer-identity", e.OuterIdentity, false},
		{"identity-password", e.IdentityPassword, true},
	} {
		if err := checkText(text.value, maxText, text.secret); err != nil {
			return fmt.Errorf("%s: %w", text.field, err)
		}
	}
	switch {
	case !tunnelled && e.UserName+e.Password+e.OuterIdentity != "":
		return errors.New("eap-user: user, password and outer identity are for ttls and peap; tls signs in by a certificate")
	case e.Password != "" && e.UserName == "":
		return errors.New("eap-user: missing (a password needs its user)")
	case e.Inner != "" && !slices.Contains(e.Methods, "ttls"):
		return errors.New("eap-inner: only ttls has an inner method")
	case e.Inner != "" && !slices.Contains(InnerMethods, e.Inner):
		return fmt.Errorf("eap-inner: unknown method %q (allowed: %s)", e.Inner, strings.Join(InnerMethods, ", "))
	case len(e.ServerNames) == 0 && len(e.Roots) == 0:
		return errors.New("eap-server-name: missing (the name in the RADIUS server's certificate, or its root as eap-root; without both, people decide which server to trust)")
	case len(e.Identity) == 0 && slices.Contains(e.Methods, "tls"):
		return errors.New("identity: missing (tls needs a certificate with its key, as PKCS #12)")
	case len(e.Identity) == 0 && e.IdentityPassword != "":
		return errors.New("identity: missing (identity-password has nothing to open)")
	}
	for _, name := range e.ServerNames {
		host, addr, err := policy.ParseHost(strings.ReplaceAll(name, "*", "x")) // a * stands for a part
		if err == nil && (addr.IsValid() || host == "") {
			err = errors.New("must be a name, not an address")
		}
		if err != nil {
			return fmt.Errorf("eap-server-name: invalid name %q: %w", name, err)
		}
	}
	return e.checkIdentity()
}

func (e *EAP) checkIdentity() error {
	if len(e.Identity) == 0 {
		return nil
	}
	_, _, _, err := pkcs12.DecodeChain(e.Identity, e.IdentityPassword)
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		if e.IdentityPassword == "" { // the device asks for it
			return nil
		}
		return errors.New("identity-password: wrong password")
	}
	// Devices may know more ciphers than this library.
	if _, odd := errors.AsType[pkcs12.NotImplementedError](err); err != nil && !odd {
		return fmt.Errorf("identity: invalid PKCS #12 file: %w", err)
	}
	return nil
}

func isHex(s string) bool { return strings.Trim(strings.ToLower(s), "0123456789abcdef") == "" }

// payloads are that of the network and those of the certificates that it refers to.
func (w WiFi) payloads(pacURL string, fallback bool) []payload {
	keys := optional(map[string]any{"Password": w.Password, "DisableAssociationMACRandomization": w.FixedMAC})
	maps.Copy(keys, map[string]any{
		"SSID_STR": w.SSID, "HIDDEN_NETWORK": w.Hidden, "AutoJoin": true, "EncryptionType": w.Encryption,
		"ProxyType": "Auto", "ProxyPACURL": pacURL, "ProxyPACFallbackAllowed": fallback,
	})
	// A UUID of the name, since it may hold anything.
	list := []payload{{kind: "com.apple.wifi.managed", name: "wifi." + strings.ToLower(id(w.SSID)), title: "Wi-Fi " + w.SSID, keys: keys}}
	if w.EAP == nil {
		return list
	}
	var types []int
	for _, m := range w.EAP.Methods {
		types = append(types, eapTypes[m])
	}
	var anchors []payloadRef
	for i, cert := range w.EAP.Roots {
		p := certificate(cert, fmt.Sprintf("payload.radius-root.%d", i), fmt.Sprintf("radius-root-%d.cer", i))
		anchors = append(anchors, payloadRef(p.name))
		list = append(list, p)
	}
	keys["EAPClientConfiguration"] = optional(map[string]any{
		"AcceptEAPTypes": types, "TLSMinimumVersion": "1.2", // RFC 8996 and RFC 9190 retire what is older
		"UserName": w.EAP.UserName, "UserPassword": w.EAP.Password, "OuterIdentity": w.EAP.OuterIdentity,
		"TTLSInnerAuthentication": w.EAP.Inner, "TLSTrustedServerNames": w.EAP.ServerNames, "PayloadCertificateAnchorUUID": anchors,
	})
	if len(w.EAP.Identity) > 0 {
		p := payload{kind: "com.apple.security.pkcs12", name: "payload.identity", title: "Wi-Fi " + w.SSID + ": certificate", keys: optional(map[string]any{
			"PayloadContent": w.EAP.Identity, "PayloadCertificateFileName": "identity.p12", "Password": w.EAP.IdentityPassword,
		})}
		keys["PayloadCertificateUUID"] = payloadRef(p.name)
		list = append(list, p)
	}
	return list
}

// certificate is the payload of one that devices shall know.
func certificate(cert *x509.Certificate, name, file string) payload {
	kind := "com.apple.security.root"
	if !bytes.Equal(cert.RawSubject, cert.RawIssuer) {
		kind = "com.apple.security.pkcs1" // an intermediate
	}
	title := cert.Subject.CommonName
	if title == "" || checkText(title, maxText, false) != nil {
		title = "Certificate"
	}
	return payload{kind: kind, name: name, title: title, keys: map[string]any{
		"PayloadContent": cert.Raw, "PayloadCertificateFileName": file,
	}}
}
