package egress

import (
	"testing"
	"time"
)

func TestConfigValidate(t *testing.T) {
	const noServer = ` is no name server (allowed: an address or address:port)`
	const noParent = `parent: is no proxy URL (allowed: http://[user:pass@]host:port, several separated by commas)`
	const noSecond = `parent: number 2 is no proxy URL (allowed: http://[user:pass@]host:port, several separated by commas)`
	const noNAT64 = ` is no NAT64 prefix (allowed: IPv6 with /32, /40, /48, /56, /64 or /96)`
	hosts := func(name, addrs string) Config { return Config{Hosts: map[string]string{name: addrs}} }
	tests := []struct {
		name string
		cfg  Config // with a connect_timeout of 10 s where 0
		want string
	}{
		{"zero", Config{}, ""},
		{"everything", Config{
			Hosts:  map[string]string{"a.example": "192.0.2.1", "*.b.example": "192.0.2.1, 2001:db8::1", "xn--bcher-kva.example": "::1", "_x": "::1"},
			DNS:    []string{"192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353", "fe80::53%eth0"},
			Allow:  []string{"10.0.0.0/8", "192.0.2.1", "loopback", "private"},
			Parent: "http://user:pass@proxy.example:3128/, http://[2001:db8::3]:3128,http://u%2Cs:p%3Aw@192.0.2.3:1",
		}, ""},
		{"host in upper case", hosts("A.example", "192.0.2.1"), `hosts.A.example: "A.example" is no name (allowed: a lower-case name or *.name)`},
		{"host with a trailing dot", hosts("a.example.", "192.0.2.1"), `hosts.a.example.: "a.example." is no name (allowed: a lower-case name or *.name)`},
		{"host not in ASCII", hosts("bücher.example", "192.0.2.1"), `hosts.bücher.example: "bücher.example" is no name (allowed: a lower-case name or *.name)`},
		{"host that shrinks", hosts("\u00ada.example", "192.0.2.1"), "hosts.\u00ada.example: \"\\u00ada.example\" is no name (allowed: a lower-case name or *.name)"},
		{"host is an address", hosts("192.0.2.1", "192.0.2.2"), `hosts.192.0.2.1: "192.0.2.1" is no name (allowed: a lower-case name or *.name)`},
		{"host is a block", hosts("192.0.2.0/24", "192.0.2.2"), `hosts.192.0.2.0/24: "192.0.2.0/24" is no name (allowed: a lower-case name or *.name)`},
		{"host is everything", hosts("*", "192.0.2.2"), `hosts.*: "*" is no name (allowed: a lower-case name or *.name)`},
		{"no address", hosts("a.example", ""), `hosts.a.example: "" is no address`},
		{"address with a port", hosts("a.example", "192.0.2.1:443"), `hosts.a.example: "192.0.2.1:443" is no address`},
		{"address with a zone", hosts("a.example", "fe80::1%eth0"), `hosts.a.example: "fe80::1%eth0" is no address`},
		{"a name for an address", hosts("a.example", "192.0.2.1, b.example"), `hosts.a.example: "b.example" is no address`},
		{"a comma too many", hosts("a.example", "192.0.2.1,"), `hosts.a.example: "" is no address`},
		{"name server by name", Config{DNS: []string{"192.0.2.53", "dns.example"}}, `dns[1]: "dns.example"` + noServer},
		{"name server on port 0", Config{DNS: []string{"192.0.2.53:0"}}, `dns[0]: "192.0.2.53:0"` + noServer},
		{"name server as URL", Config{DNS: []string{"https://192.0.2.53"}}, `dns[0]: "https://192.0.2.53"` + noServer},
		{"empty name server", Config{DNS: []string{""}}, `dns[0]: ""` + noServer},
		{"allow", Config{Allow: []string{"10.0.0.0/8", "10.0.0.1/8", "lab"}}, `allow[1]: "10.0.0.1/8" has bits set behind the prefix; did you mean 10.0.0.0/8?` + "\n" +
			`allow[2]: "lab" is no address block (allowed: a CIDR block, an address, loopback, private)`},
		{"NAT64", Config{NAT64: []string{"64:ff9b:1::/48", "2001:db8::/96", "2001:db8::/60", "2001:db8::1/96", "10.0.0.0/32", "::ffff:0.0.0.0/96", "fd64::1"}}, `nat64[2]: "2001:db8::/60"` + noNAT64 + "\n" +
			`nat64[3]: "2001:db8::1/96" has bits set behind the prefix; did you mean 2001:db8::/96?` + "\n" +
			`nat64[4]: "10.0.0.0/32"` + noNAT64 + "\n" + `nat64[5]: "::ffff:0.0.0.0/96"` + noNAT64 + "\n" + `nat64[6]: "fd64::1"` + noNAT64},
		{"parent without scheme", Config{Parent: "proxy.example:3128"}, noParent},
		{"parent by TLS", Config{Parent: "https://proxy.example:3128"}, noParent},
		{"parent without port", Config{Parent: "http://proxy.example"}, noParent},
		{"parent without host", Config{Parent: "http://:3128"}, noParent},
		{"parent on port 0", Config{Parent: "http://proxy.example:0"}, noParent},
		{"parent with a path", Config{Parent: "http://proxy.example:3128/x"}, noParent},
		{"parent with a query", Config{Parent: "http://proxy.example:3128?x"}, noParent},
		{"parent with a fragment", Config{Parent: "http://proxy.example:3128#x"}, noParent},
		{"one of several parents", Config{Parent: "http://a.example:3128, b.example:3128"}, noSecond},
		{"a parent too few", Config{Parent: "http://a.example:3128,"}, noSecond},
		{"comma in a parent's password", Config{Parent: "http://a.example:3128,http://user:sec,ret@b.example:3128"}, noSecond},
		{"colon in a parent's user", Config{Parent: "http://us%3Aer:pass@proxy.example:3128"}, noParent},
		{"line end in a parent's password", Config{Parent: "http://user:pass%0d%0aX:y@proxy.example:3128"}, noParent},
		{"parent's password is not shown", Config{Parent: "http://user:secret@"}, noParent},
		{"negative timeout", Config{ConnectTimeout: -time.Second}, "connect_timeout: must be positive, not -1s"},
		{"all of them, in order", Config{
			Hosts: map[string]string{"b.example": "x", "A": "x"}, DNS: []string{"x"}, Allow: []string{"x"}, Parent: "x", ConnectTimeout: -1,
		}, `hosts.A: "A" is no name (allowed: a lower-case name or *.name)
hosts.A: "x" is no address
hosts.b.example: "x" is no address
dns[0]: "x"` + noServer + `
allow[0]: "x" is no address block (allowed: a CIDR block, an address, loopback, private)
` + noParent + `
connect_timeout: must be positive, not -1ns`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.cfg.ConnectTimeout == 0 {
				tt.cfg.ConnectTimeout = 10 * time.Second
			}
			got := ""
			if err := tt.cfg.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if d, err := New(tt.cfg, Self{}); (err == nil) != (tt.want == "") || (d == nil) != (err != nil) {
				t.Errorf("New = %v, %v", d, err)
			}
		})
	}
	if err := (Config{}).Validate(); err == nil || err.Error() != "connect_timeout: must be positive, not 0s" {
		t.Errorf("the zero value: %v", err)
	}
}
