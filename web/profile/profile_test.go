package profile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"howett.net/plist"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var uuidForm = regexp.MustCompile(`^[0-9A-F]{8}-[0-9A-F]{4}-5[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$`)

// check holds a dictionary against the schema of its type.
func check(t *testing.T, dict map[string]any) {
	t.Helper()
	if err := checkSchema(dict); err != nil {
		t.Error(err)
	}
	if id, _ := dict["PayloadUUID"].(string); !uuidForm.MatchString(id) {
		t.Errorf("%s: UUID %q", dict["PayloadType"], id)
	}
}

func parse(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var top map[string]any
	if _, err := plist.Unmarshal(data, &top); err != nil {
		t.Fatal(err)
	}
	return top
}

func issuer(t *testing.T, c Config) *Issuer {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	i, err := NewIssuer(c)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

var school = Config{Organization: "Example School", Identifier: "org.example.school"}

// root is a certificate whose bytes do not change, so that golden files can hold
// it; devices look at it, profiles do not.
var root = &x509.Certificate{Raw: []byte("the certificate in DER"), Subject: pkix.Name{CommonName: "Example Root"}}

const pacURL = "http://proxy.example.org:8080/proxy.pac"

// radius is a network with 802.1X that signs in by methods.
func radius(methods ...string) *WiFi {
	return &WiFi{SSID: "staff", Encryption: "WPA3", EAP: &EAP{Methods: methods, ServerNames: []string{"radius.example.org"}}}
}

// everyKind are profiles that a device may have beside each other.
func everyKind(t *testing.T) []struct {
	name     string
	r        Request
	payloads []string
} {
	peap := radius("peap", "ttls")
	peap.FixedMAC = true
	peap.EAP.UserName, peap.EAP.Password, peap.EAP.OuterIdentity, peap.EAP.Inner = "ipad", "a secret word", "anonymous", "PAP"
	peap.EAP.Roots = []*x509.Certificate{root, {Raw: []byte("another"), RawSubject: []byte("b"), RawIssuer: []byte("a")}}
	tls := radius("tls")
	tls.SSID, tls.EAP.Identity, tls.EAP.IdentityPassword = "staff tls", identity(t), "open sesame"
	return []struct {
		name     string
		r        Request
		payloads []string
	}{
		{"global-proxy", Request{Kind: KindGlobalProxy, PACURL: pacURL, Proxy: ProxyOptions{CaptiveLogin: true}}, []string{"com.apple.proxy.http.global"}},
		{"global-proxy-site", Request{Kind: KindGlobalProxy, Site: "north", PACURL: "http://proxy.example.org:8080/pac/north.pac", Proxy: ProxyOptions{Fallback: true}, Locked: true},
			[]string{"com.apple.proxy.http.global"}},
		{"global-proxy-site-proxy", Request{Kind: KindGlobalProxy, Site: "proxy", PACURL: pacURL}, []string{"com.apple.proxy.http.global"}},
		{"wifi", Request{Kind: KindWiFi, PACURL: pacURL, WiFi: &WiFi{SSID: "Skolan <5 GHz> & \"mer\"", Encryption: "WPA2", Password: "12345678", Hidden: true}},
			[]string{"com.apple.wifi.managed"}},
		{"wifi-site", Request{Kind: KindWiFi, Site: "north", PACURL: pacURL, WiFi: &WiFi{SSID: "school", Encryption: "None"}}, []string{"com.apple.wifi.managed"}},
		{"wifi-peap", Request{Kind: KindWiFi, PACURL: pacURL, WiFi: peap},
			[]string{"com.apple.wifi.managed", "com.apple.security.root", "com.apple.security.pkcs1"}},
		{"wifi-tls", Request{Kind: KindWiFi, PACURL: pacURL, WiFi: tls}, []string{"com.apple.wifi.managed", "com.apple.security.pkcs12"}},
		{"network-proxy", Request{Kind: KindNetworkProxy, PACURL: pacURL, Proxy: ProxyOptions{CaptiveLogin: true}}, []string{"com.apple.SystemConfiguration"}},
		{"network-proxy-site", Request{Kind: KindNetworkProxy, Site: "north", PACURL: pacURL, Proxy: ProxyOptions{Fallback: true}}, []string{"com.apple.SystemConfiguration"}},
		{"ca", Request{Kind: KindCA, Root: root}, []string{"com.apple.security.root"}},
		{"ca-beside", Request{Kind: KindCA, Root: root, Beside: true}, []string{"com.apple.security.root"}},
		{"ca-beside-2", Request{Kind: KindCA, Root: &x509.Certificate{Raw: []byte("the next")}, Beside: true}, []string{"com.apple.security.root"}},
		{"dns", Request{Kind: KindDNS, DNS: &DNS{Server: "https://dns.example.org/dns-query{?dns}", Addresses: []string{"192.0.2.53", "2001:DB8::53"}, Locked: true}},
			[]string{"com.apple.dnsSettings.managed"}},
		{"dns-domains", Request{Kind: KindDNS, DNS: &DNS{Server: "tls://dns.example.org", Domains: []string{"*.school.example", "Example.org"}}},
			[]string{"com.apple.dnsSettings.managed"}},
		{"restrictions", Request{Kind: KindRestrictions, RemoveOn: time.Date(2126, 6, 30, 14, 0, 0, 0, time.FixedZone("", 7200)), RemoveAfter: 30 * 24 * time.Hour},
			[]string{"com.apple.applicationaccess"}},
		{"bundle", Request{Kind: KindBundle, PACURL: pacURL, Root: root}, []string{"com.apple.security.root", "com.apple.proxy.http.global"}},
		{"bundle-wifi", Request{Kind: KindBundle, PACURL: pacURL, Root: root, WiFi: &WiFi{SSID: "school", Encryption: "None"}},
			[]string{"com.apple.security.root", "com.apple.wifi.managed"}},
		{"bundle-wifi-2", Request{Kind: KindBundle, PACURL: pacURL, Root: root, WiFi: &WiFi{SSID: "School", Encryption: "None"}},
			[]string{"com.apple.security.root", "com.apple.wifi.managed"}},
		{"bundle-site-root", Request{Kind: KindBundle, Site: "root", PACURL: pacURL, Root: root}, []string{"com.apple.security.root", "com.apple.proxy.http.global"}},
		{"bundle-all", Request{Kind: KindBundle, Site: "north", PACURL: pacURL, Root: root, NoPrivateRelay: true, DNS: &DNS{Server: "tls://dns.example.org"}},
			[]string{"com.apple.security.root", "com.apple.proxy.http.global", "com.apple.dnsSettings.managed", "com.apple.applicationaccess"}},
	}
}

func TestProfiles(t *testing.T) {
	seen := map[string]string{}
	kinds := map[string]bool{}
	for _, tt := range append(everyKind(t), struct {
		name     string
		r        Request
		payloads []string
	}{"bundle-without-ca", Request{Kind: KindBundle, PACURL: pacURL}, []string{"com.apple.proxy.http.global"}}) {
		kinds[tt.r.Kind] = true
		t.Run(tt.name, func(t *testing.T) {
			data, err := issuer(t, school).Make(tt.r)
			if err != nil {
				t.Fatal(err)
			}
			again, _ := issuer(t, school).Make(tt.r)
			if !bytes.Equal(data, again) {
				t.Error("the same profile has other bytes the second time")
			}
			top := parse(t, data)
			check(t, top)
			var kinds, ids []string
			dicts := []map[string]any{top}
			for _, p := range top["PayloadContent"].([]any) {
				dict := p.(map[string]any)
				check(t, dict)
				kinds = append(kinds, dict["PayloadType"].(string))
				dicts = append(dicts, dict)
			}
			for _, dict := range dicts {
				ids = append(ids, dict["PayloadUUID"].(string), dict["PayloadIdentifier"].(string))
			}
			if !slices.Equal(kinds, tt.payloads) {
				t.Errorf("payloads %v, want %v", kinds, tt.payloads)
			}
			if tt.name != "bundle-without-ca" { // the bundle replaces it
				for _, id := range ids {
					if other, taken := seen[id]; taken {
						t.Errorf("%s is that of %s too", id, other)
					}
					seen[id] = tt.name
				}
			}
			golden := filepath.Join("testdata", tt.name+".mobileconfig")
			if *update {
				if err := os.WriteFile(golden, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || !bytes.Equal(data, want) {
				t.Errorf("%s differs (-update): %v\n%s", golden, err, data)
			}
		})
	}
	for _, kind := range Kinds {
		if !kinds[kind] {
			t.Errorf("no profile of kind %s", kind)
		}
	}
}

// References to certificates are the UUIDs of payloads in the same profile.
func TestCertificateReferences(t *testing.T) {
	for _, tt := range everyKind(t) {
		if tt.r.WiFi == nil || tt.r.WiFi.EAP == nil {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			data, err := issuer(t, school).Make(tt.r)
			if err != nil {
				t.Fatal(err)
			}
			var certificates, refs []any
			for _, p := range parse(t, data)["PayloadContent"].([]any) {
				dict := p.(map[string]any)
				if strings.HasPrefix(dict["PayloadType"].(string), "com.apple.security.") {
					certificates = append(certificates, dict["PayloadUUID"])
					continue
				}
				if ref, ok := dict["PayloadCertificateUUID"]; ok {
					refs = append(refs, ref)
				}
				anchors, _ := dict["EAPClientConfiguration"].(map[string]any)["PayloadCertificateAnchorUUID"].([]any)
				refs = append(refs, anchors...)
			}
			if len(refs) == 0 || !slices.Equal(refs, certificates) {
				t.Errorf("references %v, certificates %v", refs, certificates)
			}
		})
	}
}

// A device replaces what it has from before: these identifiers are those of the
// first version.
func TestIdentifiersOfBefore(t *testing.T) {
	for name, want := range map[string]string{
		"global-proxy": "org.example.school.global-proxy", "global-proxy-site": "org.example.school.global-proxy.north",
		"ca": "org.example.school.ca", "bundle": "org.example.school.bundle", "bundle-without-ca": "org.example.school.bundle",
		"wifi": "org.example.school.wifi." + strings.ToLower(id("Skolan <5 GHz> & \"mer\"")),
	} {
		data, err := os.ReadFile(filepath.Join("testdata", name+".mobileconfig"))
		if err != nil {
			t.Fatal(err)
		}
		if top := parse(t, data); top["PayloadIdentifier"] != want || top["PayloadUUID"] != id(want) {
			t.Errorf("%s: %v %v, want %s", name, top["PayloadIdentifier"], top["PayloadUUID"], want)
		}
	}
}

// docs/mdm.md says of systems and supervision what the schema says.
func TestDocumentedPayloads(t *testing.T) {
	text, err := os.ReadFile("../../docs/mdm.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{"ios": "iOS", "macos": "macOS", "tvos": "tvOS", "visionos": "visionOS", "watchos": "watchOS"}
	documented := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 4 || !strings.HasPrefix(cells[1], "`com.apple.") {
			continue
		}
		kind := strings.Trim(cells[0], "| `")
		payload, key, _ := strings.Cut(strings.Trim(cells[1], "`"), "` `")
		row, ok := schema()[payload][key]
		if !ok {
			t.Errorf("%s: the schema has no %s %s", kind, payload, key)
			continue
		}
		documented[kind] = true
		var systems, supervised []string
		for _, system := range []string{"ios", "macos", "tvos", "visionos", "watchos"} {
			for _, x := range row.systems {
				if version, ok := strings.CutPrefix(x, system+"="); ok && version != "-" {
					systems = append(systems, names[system]+" "+strings.TrimSuffix(version, ".0"))
				}
			}
			if slices.Contains(row.supervised, system) {
				supervised = append(supervised, names[system])
			}
		}
		want := "no"
		if len(supervised) > 0 {
			want = strings.Join(supervised, ", ")
		}
		if got := strings.TrimSuffix(cells[3], " |"); cells[2] != strings.Join(systems, ", ") || got != want {
			t.Errorf("%s: %s | %s, want %s | %s", kind, cells[2], got, strings.Join(systems, ", "), want)
		}
	}
	for _, kind := range Kinds {
		if !documented[kind] && kind != KindBundle {
			t.Errorf("docs/mdm.md has no row for %s", kind)
		}
	}
}

// The check sees what no device would take.
func TestCheckSchema(t *testing.T) {
	wifi := func(key string, value any) map[string]any {
		d := map[string]any{"PayloadType": "com.apple.wifi.managed", "PayloadVersion": 1, "PayloadIdentifier": "a", "PayloadUUID": "b"}
		d[key] = value
		return d
	}
	for name, tt := range map[string]struct {
		dict map[string]any
		want string
	}{
		"good":          {wifi("SSID_STR", "x"), ""},
		"unknown type":  {map[string]any{"PayloadType": "com.apple.vpn"}, `PayloadType: unknown type "com.apple.vpn"`},
		"no type":       {map[string]any{}, `PayloadType: unknown type ""`},
		"all types":     {map[string]any{"PayloadType": "*"}, `PayloadType: unknown type "*"`},
		"unknown key":   {wifi("Ssid", "x"), "com.apple.wifi.managed: Ssid: unknown key"},
		"empty key":     {wifi("", "x"), `com.apple.wifi.managed: : is string, must be payload`},
		"another type":  {wifi("HIDDEN_NETWORK", 1), "com.apple.wifi.managed: HIDDEN_NETWORK: is integer, must be boolean"},
		"bad value":     {wifi("EncryptionType", "WPA9"), "com.apple.wifi.managed: EncryptionType: WPA9 is not allowed"},
		"bad version":   {wifi("PayloadVersion", 2), "com.apple.wifi.managed: PayloadVersion: 2 is not allowed"},
		"in an array":   {wifi("EAPClientConfiguration", map[string]any{"AcceptEAPTypes": []int{13, 14}}), "com.apple.wifi.managed: EAPClientConfiguration.AcceptEAPTypes[]: 14 is not allowed"},
		"missing":       {map[string]any{"PayloadType": "com.apple.security.root", "PayloadVersion": 1, "PayloadIdentifier": "a", "PayloadUUID": "b"}, "com.apple.security.root: PayloadContent: missing"},
		"missing below": {wifi("EAPClientConfiguration", map[string]any{}), "com.apple.wifi.managed: EAPClientConfiguration.AcceptEAPTypes: missing"},
		"missing UUID":  {map[string]any{"PayloadType": "com.apple.wifi.managed", "PayloadVersion": 1, "PayloadIdentifier": "a"}, "com.apple.wifi.managed: PayloadUUID: missing"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkSchema(tt.dict)
			if err == nil && tt.want != "" || err != nil && err.Error() != tt.want {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// An update replaces: what may change leaves the identifiers alone.
func TestIdentifiersAreStable(t *testing.T) {
	a, _ := issuer(t, school).Make(Request{Kind: KindGlobalProxy, PACURL: "http://a.example/proxy.pac"})
	renamed := school
	renamed.Organization = "Another name"
	b, _ := issuer(t, renamed).Make(Request{Kind: KindGlobalProxy, PACURL: "http://b.example/x.pac", Proxy: ProxyOptions{true, true}, Locked: true})
	x, y := parse(t, a), parse(t, b)
	if x["PayloadUUID"] != y["PayloadUUID"] || x["PayloadIdentifier"] != y["PayloadIdentifier"] {
		t.Errorf("%v and %v", x, y)
	}
	other := school
	other.Identifier = "org.example.other"
	c, _ := issuer(t, other).Make(Request{Kind: KindGlobalProxy, PACURL: "http://a.example/proxy.pac"})
	if parse(t, c)["PayloadUUID"] == x["PayloadUUID"] {
		t.Error("two organisations have the same UUID")
	}
}

func TestMakeErrors(t *testing.T) {
	wifi := func(ssid, encryption, password string) Request {
		return Request{Kind: KindWiFi, PACURL: pacURL, WiFi: &WiFi{SSID: ssid, Encryption: encryption, Password: password}}
	}
	url := func(url string) Request { return Request{Kind: KindGlobalProxy, PACURL: url} }
	eap := func(change func(*EAP), methods ...string) Request {
		w := radius(methods...)
		change(w.EAP)
		return Request{Kind: KindWiFi, PACURL: pacURL, WiFi: w}
	}
	dns := func(d DNS) Request { return Request{Kind: KindDNS, DNS: &d} }
	const wep, wpa = "password: must have 5 or 13 characters, or 10 or 26 hexadecimal digits", "password: must have 8 to 63 characters, or 64 hexadecimal digits"
	tests := []struct {
		name string
		r    Request
		want string
	}{
		{"kind", Request{Kind: "vpn"}, `kind: unknown kind "vpn" (allowed: global-proxy, wifi, network-proxy, ca, dns, restrictions, bundle)`},
		{"no CA", Request{Kind: KindCA}, "there is no CA for TLS interception (`espalier ca init` makes one)"},

		{"no URL", url(""), `pac-url: invalid URL "": missing http:// or https://`},
		{"a file", url("file:///etc/passwd"), `pac-url: invalid URL "file:///etc/passwd": scheme must be http or https, not "file"`},
		{"a port too large", url("http://h:99999/"), `pac-url: invalid URL "http://h:99999/": port is not a number from 1 to 65535`},
		{"a host that is none", url("http://a..b/"), `pac-url: invalid URL "http://a..b/": host has an empty label`},
		{"a user in the URL", url("http://u@h/"), `pac-url: invalid URL "http://u@h/": user and password are not allowed`},
		{"a URL of a Mac's", Request{Kind: KindNetworkProxy, PACURL: "http://h:0/"}, `pac-url: invalid URL "http://h:0/": port is not a number from 1 to 65535`},
		{"a URL of a bundle's", Request{Kind: KindBundle, PACURL: "x"}, `pac-url: invalid URL "x": missing http:// or https://`},

		{"no network", Request{Kind: KindWiFi, PACURL: pacURL}, "ssid: missing (the network's name)"},
		{"an empty name", wifi("", "None", ""), "ssid: missing (the network's name)"},
		{"a long name", wifi(strings.Repeat("x", 33), "None", ""), `ssid: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": 33 bytes are too many (allowed: 32)`},
		{"a name that is long in bytes", wifi(strings.Repeat("å", 17), "None", ""), `ssid: "ååååååååååååååååå": 34 bytes are too many (allowed: 32)`},
		{"a control byte in a name", wifi("a\x01b", "None", ""), `ssid: "a\x01b": control character U+0001 is not allowed`},
		{"a line feed in a name", wifi("a\n", "None", ""), `ssid: "a\n": control character U+000A is not allowed`},
		{"a C1 control in a name", wifi("a\u0085", "None", ""), `ssid: "a\u0085": control character U+0085 is not allowed`},
		{"no character in a name", wifi("a\uffff", "None", ""), `ssid: "a\uffff": control character U+FFFF is not allowed`},
		{"no UTF-8 in a name", wifi("a\xff", "None", ""), `ssid: "a\xff": invalid UTF-8`},
		{"a control byte in a bundle's", Request{Kind: KindBundle, PACURL: pacURL, WiFi: &WiFi{SSID: "\x00", Encryption: "None"}}, `ssid: "\x00": control character U+0000 is not allowed`},
		{"an unknown cipher", wifi("a", "WPA9", ""), `encryption: unknown encryption "WPA9" (allowed: None, Any, WEP, WPA, WPA2, WPA3)`},
		{"a password where none is", wifi("a", "None", "12345678"), "password: an open network has none"},
		{"64 characters that are no key", wifi("a", "WPA2", strings.Repeat("x", 64)), wpa},
		{"65 digits", wifi("a", "WPA2", strings.Repeat("0", 65)), wpa},
		{"a short password", wifi("a", "WPA2", "1234567"), wpa},
		{"a control byte in a password", wifi("a", "WPA2", "12345678\x1b"), "password: control characters are not allowed"},
		{"no UTF-8 in a password", wifi("a", "Any", "\xff"), "password: invalid UTF-8"},
		{"a password that WEP has not", wifi("a", "WEP", "123456"), wep},
		{"10 characters that are no key", wifi("a", "WEP", "xxxxxxxxxx"), wep},

		{"802.1X of no method", eap(func(*EAP) {}), "eap: missing (one or more of tls, ttls, peap)"},
		{"802.1X of another method", eap(func(*EAP) {}, "leap"), `eap: unknown method "leap" (allowed: tls, ttls, peap)`},
		{"802.1X with any server", eap(func(e *EAP) { e.ServerNames = nil }, "peap"),
			"eap-server-name: missing (the name in the RADIUS server's certificate, or its root as eap-root; without both, people decide which server to trust)"},
		{"802.1X with an odd server", eap(func(e *EAP) { e.ServerNames = []string{"a b"} }, "peap"), `eap-server-name: invalid name "a b": host has a byte ' ' that no name may have`},
		{"802.1X with an address", eap(func(e *EAP) { e.ServerNames = []string{"192.0.2.1"} }, "peap"), `eap-server-name: invalid name "192.0.2.1": must be a name, not an address`},
		{"802.1X with a control byte", eap(func(e *EAP) { e.UserName = "a\x00" }, "peap"), `eap-user: "a\x00": control character U+0000 is not allowed`},
		{"802.1X with a secret control byte", eap(func(e *EAP) { e.UserName, e.Password = "a", "secret\x00" }, "peap"), "password: control characters are not allowed"},
		{"802.1X with a password alone", eap(func(e *EAP) { e.Password = "secret" }, "peap"), "eap-user: missing (a password needs its user)"},
		{"802.1X without a certificate", eap(func(*EAP) {}, "tls"), "identity: missing (tls needs a certificate with its key, as PKCS #12)"},
		{"802.1X with a user for tls", eap(func(e *EAP) { e.UserName = "a" }, "tls"), "eap-user: user, password and outer identity are for ttls and peap; tls signs in by a certificate"},
		{"802.1X with an inner method of peap", eap(func(e *EAP) { e.Inner = "PAP" }, "peap"), "eap-inner: only ttls has an inner method"},
		{"802.1X with an unknown inner method", eap(func(e *EAP) { e.Inner = "pap" }, "ttls"), `eap-inner: unknown method "pap" (allowed: PAP, CHAP, MSCHAP, MSCHAPv2, EAP)`},
		{"802.1X with a wrong password", eap(func(e *EAP) { e.Identity, e.IdentityPassword = identity(t), "wrong" }, "tls"), "identity-password: wrong password"},
		{"802.1X with a password for nothing", eap(func(e *EAP) { e.IdentityPassword = "x" }, "peap"), "identity: missing (identity-password has nothing to open)"},
		{"802.1X with what is no PKCS #12", eap(func(e *EAP) { e.Identity = []byte("PEM") }, "tls"), "identity: invalid PKCS #12 file: "},
		{"802.1X without encryption", func() Request { r := eap(func(*EAP) {}, "peap"); r.WiFi.Encryption = "None"; return r }(), "encryption: 802.1X needs WPA, WPA2, WPA3 or Any, not None"},
		{"802.1X with the network's password", func() Request { r := eap(func(*EAP) {}, "peap"); r.WiFi.Password = "12345678"; return r }(),
			"password: a network with 802.1X has none; it is the user's (eap-user)"},

		{"no server", Request{Kind: KindDNS}, "dns-server: missing (https://NAME/dns-query or tls://NAME)"},
		{"an empty server", dns(DNS{}), "dns-server: missing (https://NAME/dns-query or tls://NAME)"},
		{"an unencrypted server", dns(DNS{Server: "udp://192.0.2.53"}), `dns-server: invalid URL "udp://192.0.2.53": must be https://NAME/PATH or tls://NAME; devices learn of unencrypted servers by DHCP`},
		{"an address for a server", dns(DNS{Server: "192.0.2.53"}), `dns-server: invalid URL "192.0.2.53": must be https://NAME/PATH or tls://NAME; devices learn of unencrypted servers by DHCP`},
		{"a server at an odd port", dns(DNS{Server: "https://h:99999/dns-query"}), `dns-server: invalid URL "https://h:99999/dns-query": port is not a number from 1 to 65535`},
		{"a TLS server at another port", dns(DNS{Server: "tls://h:443"}), `dns-server: invalid URL "tls://h:443": port must be 853`},
		{"a TLS server with a path", dns(DNS{Server: "tls://h/x"}), `dns-server: invalid URL "tls://h/x": host has a byte '/' that no name may have`},
		{"an odd address", dns(DNS{Server: "tls://h", Addresses: []string{"192.0.2"}}), `dns-address: invalid address "192.0.2" (192.0.2.53 or 2001:db8::53)`},
		{"an address with a zone", dns(DNS{Server: "tls://h", Addresses: []string{"fe80::1%en0"}}), `dns-address: invalid address "fe80::1%en0" (192.0.2.53 or 2001:db8::53)`},
		{"an odd domain", dns(DNS{Server: "tls://h", Domains: []string{"a\x00b"}}), `dns-domain: invalid domain "a\x00b": host has a byte '\x00' that no name may have`},
		{"an address for a domain", dns(DNS{Server: "tls://h", Domains: []string{"192.0.2.1"}}), `dns-domain: invalid domain "192.0.2.1": an address has no names below it`},
		{"a bundle's server", Request{Kind: KindBundle, PACURL: pacURL, DNS: &DNS{Server: "x"}}, `dns-server: invalid URL "x": must be https://NAME/PATH or tls://NAME; devices learn of unencrypted servers by DHCP`},

		{"a removal in the past", Request{Kind: KindRestrictions, RemoveOn: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)}, "remove-on: 2020-01-02T03:04:05Z is not in the future"},
		{"a negative life", Request{Kind: KindRestrictions, RemoveAfter: -time.Hour}, "remove-after: invalid duration -1h0m0s: must be 1s or more"},
		{"no life", Request{Kind: KindRestrictions, RemoveAfter: time.Millisecond}, "remove-after: invalid duration 1ms: must be 1s or more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, err := issuer(t, school).Make(tt.r)
			if data != nil || err == nil || err.Error() != tt.want && !(strings.HasSuffix(tt.want, ": ") && strings.HasPrefix(err.Error(), tt.want)) {
				t.Errorf("got %q and\n%v, want\n%s", data, err, tt.want)
			}
		})
	}
}

// What is odd and right passes.
func TestMake(t *testing.T) {
	for name, r := range map[string]Request{
		"32 bytes":               {Kind: KindWiFi, WiFi: &WiFi{SSID: strings.Repeat("å", 16), Encryption: "None"}},
		"spaces":                 {Kind: KindWiFi, WiFi: &WiFi{SSID: " ", Encryption: "None"}},
		"an emoji of several":    {Kind: KindWiFi, WiFi: &WiFi{SSID: "👩\u200d🏫", Encryption: "None"}},
		"a key of WPA":           {Kind: KindWiFi, WiFi: &WiFi{SSID: "a", Encryption: "WPA2", Password: strings.Repeat("aF", 32)}},
		"a key of WEP":           {Kind: KindWiFi, WiFi: &WiFi{SSID: "a", Encryption: "WEP", Password: "0123456789"}},
		"any network, open":      {Kind: KindWiFi, WiFi: &WiFi{SSID: "a", Encryption: "Any"}},
		"the device asks":        {Kind: KindWiFi, WiFi: radius("peap")},
		"a part of a name":       {Kind: KindWiFi, WiFi: &WiFi{SSID: "a", Encryption: "WPA2", EAP: &EAP{Methods: []string{"peap"}, ServerNames: []string{"wpa.*.example.org"}}}},
		"a root for the servers": {Kind: KindWiFi, WiFi: &WiFi{SSID: "a", Encryption: "WPA2", EAP: &EAP{Methods: []string{"ttls"}, Roots: []*x509.Certificate{root}}}},
		"the device opens it":    {Kind: KindWiFi, WiFi: &WiFi{SSID: "a", Encryption: "WPA2", EAP: &EAP{Methods: []string{"tls"}, Identity: identity(t), ServerNames: []string{"r.example"}}}},
		"TLS with its port":      {Kind: KindDNS, DNS: &DNS{Server: "tls://dns.example.org:853/"}},
	} {
		t.Run(name, func(t *testing.T) {
			r.PACURL = pacURL
			if _, err := issuer(t, school).Make(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// identity is a certificate and its key in PKCS #12, by the password "open sesame".
func identity(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "identity.p12"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestValidate(t *testing.T) {
	for want, c := range map[string]Config{
		"":                        school,
		"organization: missing (": {Identifier: "a"},
		`identifier: invalid identifier "a..b": `:          {Organization: "a", Identifier: "a..b"},
		`organization: "a\x00": control character U+0000 `: {Organization: "a\x00", Identifier: "a"},
		`organization: "a\xff": invalid UTF-8`:             {Organization: "a\xff", Identifier: "a"},
		"key: missing":                                     {Organization: "a", Identifier: "a", Cert: "x"},
		"cert: missing":                                    {Organization: "a", Identifier: "a", Key: "x"},
		`identifier: invalid identifier "a b": `:           {Organization: "a", Identifier: "a b"},
	} {
		if err := c.Validate(); (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	bad := school
	bad.Cert, bad.Key = "/nonexistent", "/nonexistent"
	if _, err := NewIssuer(bad); err == nil || !strings.HasPrefix(err.Error(), "cert: /nonexistent with key /nonexistent: ") {
		t.Errorf("missing files: %v", err)
	}
}

// openssl agrees with the signature, and not with another content.
func TestSigned(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) {
		if err := os.WriteFile(path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	caKey, caCert, caPEM, _ := cert(t, nil, nil)
	interKey, inter, interPEM, _ := cert(t, caCert, caKey)
	_, _, leafPEM, keyPEM := cert(t, inter, interKey)
	write("ca.pem", caPEM)
	write("chain.pem", append(leafPEM, interPEM...))
	write("key.pem", keyPEM)
	c := school
	c.Cert, c.Key = path("chain.pem"), path("key.pem")
	i := issuer(t, c)
	signed, err := i.Make(Request{Kind: KindGlobalProxy, PACURL: "http://a.example/proxy.pac"})
	if err != nil || !i.Signs() {
		t.Fatal(err)
	}
	plain, _ := issuer(t, school).Make(Request{Kind: KindGlobalProxy, PACURL: "http://a.example/proxy.pac"})
	verify := func(data []byte) ([]byte, error) {
		write("signed.mobileconfig", data)
		return exec.Command("openssl", "smime", "-verify", "-inform", "DER", "-purpose", "any", "-CAfile", path("ca.pem"), "-in", path("signed.mobileconfig")).Output()
	}
	out, err := verify(signed)
	if err != nil || !bytes.Equal(out, plain) {
		t.Errorf("openssl: %v\n%s", err, out)
	}
	at := bytes.Index(signed, []byte("a.example"))
	signed[at] = 'b'
	if out, err := verify(signed); err == nil {
		t.Errorf("openssl takes a changed profile\n%s", out)
	}
}

// cert makes a certificate that parent signs, and itself where that is nil.
func cert(t *testing.T, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (key *ecdsa.PrivateKey, c *x509.Certificate, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: serial.String()}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// What devices are given is what was asked for, whatever it holds.
func FuzzWiFi(f *testing.F) {
	f.Add("school", "a secret word", "http://a.example/proxy.pac", "Example School")
	f.Add("<&\"'>", "]]>12345678", "https://[::1]:8080/å?b=c d", "ÅÄÖ <b>")
	f.Add("a\x01\xff\u2028\ufffe", "\r\n12345678", "http://h:99999/", "\x7f")
	f.Fuzz(func(t *testing.T, ssid, password, pacURL, organization string) {
		c := Config{Organization: organization, Identifier: "a"}
		if c.Validate() != nil {
			return
		}
		i, err := NewIssuer(c)
		if err != nil {
			t.Fatal(err)
		}
		data, err := i.Make(Request{Kind: KindWiFi, PACURL: pacURL, WiFi: &WiFi{SSID: ssid, Encryption: "WPA2", Password: password}})
		if err != nil {
			if _, ok := errors.AsType[*RequestError](err); !ok {
				t.Error(err)
			}
			return
		}
		top := parse(t, data)
		wifi := top["PayloadContent"].([]any)[0].(map[string]any)
		for key, want := range map[string]any{"SSID_STR": ssid, "Password": password, "PayloadOrganization": organization} {
			if wifi[key] != want {
				t.Errorf("%s: %q, want %q", key, wifi[key], want)
			}
		}
	})
}
