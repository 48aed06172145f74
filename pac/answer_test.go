package pac

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseAnswer(t *testing.T) {
	for answer, want := range map[string]string{
		"DIRECT":                               "[{DIRECT }]",
		"PROXY a.example:80":                   "[{PROXY a.example:80}]",
		" PROXY  A.example:80 ;DIRECT; ":       "[{PROXY a.example:80} {DIRECT }]",
		"HTTPS a:1; SOCKS5 192.0.2.1:2;DIRECT": "[{HTTPS a:1} {SOCKS5 192.0.2.1:2} {DIRECT }]",
		"":                                     "it is empty",
		" ":                                    "it is empty",
		";":                                    "nothing stands between",
		"DIRECT;;DIRECT":                       "nothing stands between",
		"DIRECT a":                             `"a" stands behind DIRECT`,
		"direct":                               `"direct" is no way to go`,
		"proxy a:1":                            "small letters",
		"PROXY":                                `"PROXY" has not one host:port`,
		"PROXY a:1 b:2":                        `"PROXY a:1 b:2" has not one`,
		"PROXY a:1, DIRECT":                    "has not one",
		"PROXY a":                              "missing port",
		"PROXY [2001:db8::1]:80":               "IPv6 literal",
		"PROXY http://a:1":                     "has a scheme",
		"a.example:3128":                       `"a.example:3128" is no way to go`,
		"PROXY a:99999; nonsense":              "port is not a number",
	} {
		hops, err := ParseAnswer(answer)
		got := fmt.Sprint(hops)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || (err == nil) != strings.HasPrefix(want, "[") {
			t.Errorf("ParseAnswer(%q) = %s, want %s", answer, got, want)
		}
	}
}
