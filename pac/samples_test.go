package pac

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"espalier/policy"
)

func TestSamples(t *testing.T) {
	rows := appleSet(t, policy.Apple{Wide: true}).Rows()
	urls := Samples(rows, []string{"corp.example", "*.lab.example", "10.20.0.0/16", "192.0.2.7", "fd00::/8"})
	for _, want := range []string{
		"https://gs.apple.com/", "http://itunes.com/", "https://www.push.apple.com:5223/", "https://17.0.0.1/",
		"https://corp.example/", "http://www.corp.example/", "https://www.lab.example/", "https://10.20.0.1/", "http://192.0.2.7/",
		"https://[fd00::1]/", "https://constructor/",
	} {
		if !slices.Contains(urls, want) {
			t.Errorf("%s is not among the samples", want)
		}
	}
	seen := map[string]bool{}
	for _, url := range urls {
		if _, _, _, err := DeviceURL(url); err != nil {
			t.Error(err)
		}
		if seen[url] {
			t.Errorf("%s stands twice among the samples", url)
		}
		seen[url] = true
	}
}

func TestHostsIn(t *testing.T) {
	script := `// "not.here" is: a string
var a = "=a.example .B.example", b = '*.c.example', c = host.length; // it's
if (isInNet(host, "10.0.0.0", "1.2.3")) return "PROXY p.example:3128; PROXY a.example:80";`
	want := []string{"not.here", "a.example", "b.example", "c.example", "10.0.0.0", "p.example"}
	if got := HostsIn([]byte(script)); !slices.Equal(got, want) {
		t.Errorf("HostsIn = %q, want %q", got, want)
	}
	var many strings.Builder
	for i := range 8000 {
		fmt.Fprintf(&many, "%q\n", fmt.Sprintf("h%d.example", i))
	}
	if got := HostsIn([]byte(many.String())); len(got) != 8000 {
		t.Errorf("%d of 8000 hosts", len(got))
	}
	if got := HostsIn([]byte("\xff\xfe\"\x00a\x00.\x00b\x00\"\x00")); !slices.Equal(got, []string{"a.b"}) {
		t.Errorf("in UTF-16: %q", got)
	}
}
