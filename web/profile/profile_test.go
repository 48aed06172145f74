package profile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
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

// key is what Apple's published schema says of a key: whether it must be there,
// its type, and what it may hold.
type key struct {
	required bool
	kind     string
	allowed  []any
}

var common = map[string]key{
	"PayloadType":         {true, "string", nil},
	"PayloadVersion":      {true, "integer", []any{uint64(1)}},
	"PayloadIdentifier":   {true, "string", nil},
	"PayloadUUID":         {true, "string", nil},
	"PayloadDisplayName":  {false, "string", nil},
	"PayloadDescription":  {false, "string", nil},
	"PayloadOrganization": {false, "string", nil},
}

var schema = map[string]map[string]key{
	"Configuration": {
		"PayloadContent":           {true, "array", nil},
		"PayloadRemovalDisallowed": {false, "boolean", nil},
		"PayloadScope":             {false, "string", []any{"System", "User"}},
	},
	"com.apple.proxy.http.global": {
		"ProxyType":                {true, "string", []any{"Manual", "Auto"}},
		"ProxyServer":              {false, "string", nil},
		"ProxyServerPort":          {false, "integer", nil},
		"ProxyUsername":            {false, "string", nil},
		"ProxyPassword":            {false, "string", nil},
		"ProxyPACURL":              {false, "string", nil},
		"ProxyPACFallbackAllowed":  {false, "boolean", nil},
		"ProxyCaptiveLoginAllowed": {false, "boolean", nil},
	},
	"com.apple.wifi.managed": {
		"SSID_STR":                {false, "string", nil},
		"HIDDEN_NETWORK":          {false, "boolean", nil},
		"AutoJoin":                {false, "boolean", nil},
		"EncryptionType":          {false, "string", []any{"WEP", "WPA", "WPA2", "WPA3", "Any", "None"}},
		"Password":                {false, "string", nil},
		"ProxyType":               {false, "string", []any{"None", "Manual", "Auto"}},
		"ProxyPACURL":             {false, "string", nil},
		"ProxyPACFallbackAllowed": {false, "boolean", nil},
	},
	"com.apple.security.root": {
		"PayloadContent":             {true, "data", nil},
		"PayloadCertificateFileName": {false, "string", nil},
	},
}

var uuidForm = regexp.MustCompile(`^[0-9A-F]{8}-[0-9A-F]{4}-5[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$`)

// check holds a dictionary against the schema of its type.
func check(t *testing.T, dict map[string]any) {
	t.Helper()
	kind, _ := dict["PayloadType"].(string)
	own, ok := schema[kind]
	if !ok {
		t.Errorf("payload type %q is unknown", kind)
	}
	for _, keys := range []map[string]key{common, own} {
		for name, k := range keys {
			if _, there := dict[name]; k.required && !there {
				t.Errorf("%s: %s is missing", kind, name)
			}
		}
	}
	for name, value := range dict {
		k, ok := own[name]
		if !ok {
			if k, ok = common[name]; !ok {
				t.Errorf("%s: key %s is unknown", kind, name)
				continue
			}
		}
		got := "something else"
		switch value.(type) {
		case string:
			got = "string"
		case bool:
			got = "boolean"
		case uint64:
			got = "integer"
		case []byte:
			got = "data"
		case []any:
			got = "array"
		}
		if got != k.kind {
			t.Errorf("%s: %s is %s, want %s", kind, name, got, k.kind)
		}
		if k.allowed != nil && !slices.Contains(k.allowed, value) {
			t.Errorf("%s: %s is %v", kind, name, value)
		}
	}
	if id, _ := dict["PayloadUUID"].(string); !uuidForm.MatchString(id) {
		t.Errorf("%s: UUID %q", kind, id)
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

func TestProfiles(t *testing.T) {
	pacURL := "http://proxy.example.org:8080/proxy.pac"
	tests := []struct {
		name     string
		r        Request
		payloads []string
	}{
		{"global-proxy", Request{Kind: KindGlobalProxy, PACURL: pacURL, Proxy: ProxyOptions{CaptiveLogin: true}}, []string{"com.apple.proxy.http.global"}},
		{"global-proxy-site", Request{Kind: KindGlobalProxy, Site: "north", PACURL: "http://proxy.example.org:8080/pac/north.pac", Proxy: ProxyOptions{Fallback: true}, Locked: true},
			[]string{"com.apple.proxy.http.global"}},
		{"wifi", Request{Kind: KindWiFi, PACURL: pacURL, WiFi: &WiFi{SSID: "Skolan <5 GHz> & \"mer\"", Encryption: "WPA2", Password: "12345678", Hidden: true}},
			[]string{"com.apple.wifi.managed"}},
		{"ca", Request{Kind: KindCA, Root: root}, []string{"com.apple.security.root"}},
		{"bundle", Request{Kind: KindBundle, PACURL: pacURL, Root: root}, []string{"com.apple.security.root", "com.apple.proxy.http.global"}},
		{"bundle-wifi", Request{Kind: KindBundle, PACURL: pacURL, Root: root, WiFi: &WiFi{SSID: "school", Encryption: "None"}},
			[]string{"com.apple.security.root", "com.apple.wifi.managed"}},
		{"bundle-without-ca", Request{Kind: KindBundle, PACURL: pacURL}, []string{"com.apple.proxy.http.global"}},
	}
	seen := map[string]string{}
	for _, tt := range tests {
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
			var kinds []string
			ids := []string{top["PayloadUUID"].(string)}
			for _, p := range top["PayloadContent"].([]any) {
				dict := p.(map[string]any)
				check(t, dict)
				kinds = append(kinds, dict["PayloadType"].(string))
				ids = append(ids, dict["PayloadUUID"].(string))
			}
			if !slices.Equal(kinds, tt.payloads) {
				t.Errorf("payloads %v, want %v", kinds, tt.payloads)
			}
			if !strings.HasPrefix(tt.name, "bundle-") { // these replace the bundle
				for _, id := range ids {
					if other, taken := seen[id]; taken {
						t.Errorf("UUID %s is that of %s too", id, other)
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
	ok := "http://a.example/proxy.pac"
	wifi := func(ssid, encryption, password string) Request {
		return Request{Kind: KindWiFi, PACURL: ok, WiFi: &WiFi{SSID: ssid, Encryption: encryption, Password: password}}
	}
	tests := []struct {
		name string
		r    Request
		want string
	}{
		{"kind", Request{Kind: "vpn"}, `"vpn" is no kind of profile (allowed: global-proxy, wifi, ca, bundle)`},
		{"no CA", Request{Kind: KindCA}, "there is no CA for TLS interception (`espalier ca init` makes one)"},
		{"no URL", Request{Kind: KindGlobalProxy}, `pac-url: "" is no http or https URL`},
		{"a file", Request{Kind: KindGlobalProxy, PACURL: "file:///etc/passwd"}, `pac-url: "file:///etc/passwd" is no http or https URL`},
		{"no network", Request{Kind: KindWiFi, PACURL: ok}, "ssid: missing (the network's name)"},
		{"a long name", wifi(strings.Repeat("x", 33), "None", ""), `ssid: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" has 33 bytes (allowed: 1 to 32)`},
		{"an unknown cipher", wifi("a", "WPA9", ""), `encryption: "WPA9" is unknown (allowed: None, Any, WEP, WPA, WPA2, WPA3)`},
		{"a password where none is", wifi("a", "None", "12345678"), "password: an open network has none"},
		{"64 characters that are no key", wifi("a", "WPA2", strings.Repeat("x", 64)), "password: has to have 8 to 63 characters, or 64 hexadecimal digits"},
		{"a short password", wifi("a", "WPA2", "1234567"), "password: has to have 8 to 63 characters, or 64 hexadecimal digits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, err := issuer(t, school).Make(tt.r)
			if data != nil || err == nil || err.Error() != tt.want {
				t.Errorf("got %q and\n%v, want\n%s", data, err, tt.want)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for want, c := range map[string]Config{
		"":                            school,
		"organization: is empty":      {Identifier: "a"},
		`identifier: "a..b" is none`:  {Organization: "a", Identifier: "a..b"},
		"key: missing":                {Organization: "a", Identifier: "a", Cert: "x"},
		"cert: missing":               {Organization: "a", Identifier: "a", Key: "x"},
		`identifier: "a b" is none (`: {Organization: "a", Identifier: "a b"},
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
