// Package wpad writes what DHCP and DNS servers need to be told for web proxy
// auto-discovery: where the PAC script is.
package wpad

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"text/template"

	"espalier/policy"
)

// Formats are the servers that snippets are written for.
var Formats = []string{"dnsmasq", "isc", "kea", "windows", "mikrotik", "cisco", "fortinet", "hex"}

// maxURL is what fits into one option of DHCP (RFC 2132, section 2).
const maxURL = 255

// The URL stands as it is, without a zero byte or a line end behind it: some
// clients drop the last character, for which /wpad.da is served too, and others
// would ask for what is added.
var dhcp = map[string]string{
	"dnsmasq": `# Option 252: where clients find the PAC script.
dhcp-option=252,"{{.URL}}"
`,
	"isc": `# Option 252: where clients find the PAC script.
option wpad-url code 252 = text;
option wpad-url "{{.URL}}";
`,
	"kea": `// Option 252: where clients find the PAC script. Into "Dhcp4", or a subnet of it;
// option-def into "Dhcp4" only.
"option-def": [
  { "name": "wpad-url", "code": 252, "space": "dhcp4", "type": "string" }
],
"option-data": [
  { "name": "wpad-url", "space": "dhcp4", "data": "{{.URL}}" }
]
`,
	"windows": `# Option 252: where clients find the PAC script. In PowerShell on the DHCP server;
# -ScopeId on the last line sets it for one scope.
Add-DhcpServerv4OptionDefinition -Name "WPAD" -OptionId 252 -Type String
Set-DhcpServerv4OptionValue -OptionId 252 -Value "{{.URL}}"
`,
	"mikrotik": `# Option 252: where clients find the PAC script. The last line is for every network.
/ip dhcp-server option add name=wpad-url code=252 value="'{{.URL}}'"
/ip dhcp-server network set [find] dhcp-option=wpad-url
`,
	"cisco": `! Option 252: where clients find the PAC script. IOS, into each ip dhcp pool.
option 252 hex {{.Dotted}}
`,
	"fortinet": `# Option 252: where clients find the PAC script. FortiOS, into each entry of
# config system dhcp server.
config options
    edit 252
        set code 252
        set type hex
        set value "{{.Hex}}"
    next
end
`,
	"hex": `# Option 252: where clients find the PAC script, in hexadecimal: plain, and with
# colons as other servers want it. It is {{.URL}}
{{.Hex}}
{{.Colons}}
`,
}

const zone = `Into the zone {{.Domain}}; clients ask for http://wpad.{{.Domain}}/wpad.dat, at port 80.
wpad.{{.Domain}}. 3600 IN A {{.Address}}
`

var dns = map[string]string{
	"dnsmasq": `# Clients ask for http://wpad.{{.Domain}}/wpad.dat, at port 80.
host-record=wpad.{{.Domain}},{{.Address}}
`,
	"isc": "; " + zone,
	"kea": "; " + zone,
	"windows": `# Clients ask for http://wpad.{{.Domain}}/wpad.dat, at port 80. The server answers
# for no name of its global query block list, on which wpad stands.
Add-DnsServerResourceRecordA -ZoneName "{{.Domain}}" -Name "wpad" -IPv4Address "{{.Address}}"
Set-DnsServerGlobalQueryBlockList -List @((Get-DnsServerGlobalQueryBlockList).List | Where-Object { $_ -ne "wpad" })
`,
	"mikrotik": `# Clients ask for http://wpad.{{.Domain}}/wpad.dat, at port 80.
/ip dns static add name=wpad.{{.Domain}} address={{.Address}}
`,
	"cisco": `! Clients ask for http://wpad.{{.Domain}}/wpad.dat, at port 80.
ip host wpad.{{.Domain}} {{.Address}}
`,
	"fortinet": `# Clients ask for http://wpad.{{.Domain}}/wpad.dat, at port 80.
config system dns-database
    edit "{{.Domain}}"
        set domain "{{.Domain}}"
        set authoritative disable
        config dns-entry
            edit 1
                set hostname "wpad"
                set ip {{.Address}}
            next
        end
    next
end
`,
	"hex": "# " + zone,
}

// values are what templates are filled with; none has a character that could end
// a string in any format.
type values struct {
	URL, Domain string
	Address     netip.Addr
}

// Hex is the URL's bytes in hexadecimal, Dotted in groups of two bytes, and Colons
// with a colon between bytes.
func (v values) Hex() string    { return hex.EncodeToString([]byte(v.URL)) }
func (v values) Dotted() string { return grouped(v.Hex(), 4, ".") }
func (v values) Colons() string { return grouped(v.Hex(), 2, ":") }

func grouped(s string, n int, sep string) string {
	var groups []string
	for group := range slices.Chunk([]byte(s), n) {
		groups = append(groups, string(group))
	}
	return strings.Join(groups, sep)
}

// DHCP returns the configuration of option 252 for a DHCP server, one of Formats.
// The URL is an http one of host, port and path.
func DHCP(format, rawURL string) (string, error) {
	u, err := parse(rawURL)
	if err != nil {
		return "", err
	}
	return fill(dhcp, format, values{URL: u.String()})
}

// DNS returns the record that leads from wpad.DOMAIN to the host of the URL, which
// must be an IPv4 address.
func DNS(format, rawURL, domain string) (string, error) {
	u, err := parse(rawURL)
	if err != nil {
		return "", err
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return "", fmt.Errorf("%q has a name, but an address record needs an address (--url http://ADDRESS…/wpad.dat)", rawURL)
	}
	name, literal, err := policy.ParseHost(domain)
	if err == nil && (literal.IsValid() || strings.HasPrefix(name, "wpad.")) {
		err = errors.New("it is the domain that devices are in, such as school.example")
	}
	if err != nil {
		return "", fmt.Errorf("%q is no domain: %w", domain, err)
	}
	return fill(dns, format, values{Domain: name, Address: addr})
}

func fill(texts map[string]string, format string, v values) (string, error) {
	text, ok := texts[format]
	if !ok {
		return "", fmt.Errorf("%q is no known format (allowed: %s)", format, strings.Join(Formats, ", "))
	}
	var b strings.Builder
	err := template.Must(template.New(format).Parse(text)).Execute(&b, v)
	return b.String(), err
}

func parse(rawURL string) (*url.URL, error) {
	fail := func(why string) (*url.URL, error) {
		return nil, fmt.Errorf("%q %s (wanted: http://192.0.2.1:8080/wpad.dat)", rawURL, why)
	}
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" {
		return fail("is no URL")
	}
	odd := func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("._-/:", c))
	}
	switch {
	case u.Scheme != "http":
		return fail("is not http, which is all that every client takes")
	case slices.ContainsFunc([]rune(rawURL), odd):
		return fail("has a character that some server or client would mistake")
	case u.Path == "" || u.Path == "/":
		return fail("has no path")
	case len(rawURL) > maxURL:
		return fail(fmt.Sprintf("has more than the %d bytes that an option holds", maxURL))
	}
	if _, err := policy.ParseTarget(u.Host, 80); err != nil {
		return fail("is no URL: " + err.Error())
	}
	return u, nil
}
