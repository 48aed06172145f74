package httpurl

import (
	"net/url"
	"strings"
	"testing"

	"espalier/policy"
)

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct{ in, want, err string }{
		"name and port":       {in: "http://proxy.example.org:8080/proxy.pac", want: "http://proxy.example.org:8080/proxy.pac"},
		"no port":             {in: "https://proxy.example.org/a?b=c", want: "https://proxy.example.org/a?b=c"},
		"IPv4":                {in: "http://192.0.2.1:8080/x", want: "http://192.0.2.1:8080/x"},
		"IPv6":                {in: "http://[2001:db8::1]:8080/x", want: "http://[2001:db8::1]:8080/x"},
		"plain name":          {in: "http://wpad/wpad.dat", want: "http://wpad/wpad.dat"},
		"international name":  {in: "http://skåne.example:8080/x", want: "http://xn--skne-roa.example:8080/x"},
		"without a port":      {in: "http://skåne.example/å b", want: "http://xn--skne-roa.example/%C3%A5%20b"},
		"query":               {in: "http://h/?a=b c&d=å", want: "http://h/?a=b%20c&d=%C3%A5"},
		"empty":               {in: "", err: "missing http:// or https://"},
		"no scheme":           {in: "proxy.example.org/proxy.pac", err: "missing http:// or https://"},
		"only a host":         {in: "proxy.example.org:8080", err: "missing http:// or https://"},
		"file":                {in: "file:///etc/passwd", err: `scheme must be http or https, not "file"`},
		"no scheme at all":    {in: "://h/", err: "missing protocol scheme"},
		"opaque":              {in: "http:proxy.example.org", err: "missing http:// or https://"},
		"no host":             {in: "http:///proxy.pac", err: "missing host"},
		"port only":           {in: "http://:8080/", err: "empty host"},
		"port too large":      {in: "http://h:99999/", err: "port is not a number from 1 to 65535"},
		"port zero":           {in: "http://h:0/", err: "port is not a number from 1 to 65535"},
		"port is a word":      {in: "http://h:http/", err: `invalid port ":http" after host`},
		"odd IPv4":            {in: "http://127.1/", err: "host looks like an address but is none"},
		"zone":                {in: "http://[fe80::1%25en0]/", err: "brackets hold no IPv6 address"},
		"user":                {in: "http://user:secret@h/", err: "user and password are not allowed"},
		"empty user":          {in: "http://@h/", err: "user and password are not allowed"},
		"fragment":            {in: "http://h/#x", err: "a fragment (#) is not allowed"},
		"empty fragment":      {in: "http://h/#", err: "a fragment (#) is not allowed"},
		"control byte":        {in: "http://h/\n", err: "net/url: invalid control character in URL"},
		"control byte, host":  {in: "http://h\x00/", err: "net/url: invalid control character in URL"},
		"space in the host":   {in: "http://a b/", err: `invalid character " " in host name`},
		"invalid UTF-8, host": {in: "http://h\xff/", err: "host is not a valid international name"},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := Parse(tt.in)
			if err != nil {
				if err.Error() != tt.err {
					t.Errorf("error %q, want %q", err, tt.err)
				}
				return
			}
			if u.String() != tt.want {
				t.Errorf("%s, want %s and error %q", u, tt.want, tt.err)
			}
		})
	}
}

func TestBase(t *testing.T) {
	for in, ok := range map[string]bool{
		"http://proxy.example.org:8080": true, "https://192.0.2.1": true,
		"http://proxy.example.org/": false, "http://proxy.example.org?x": false, "http://proxy.example.org?": false, "http://h:99999": false,
	} {
		if _, err := Base(in); (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"http://h:8080/proxy.pac", "https://[::1]:1/", "http://skåne.example/å#", "http://u@h", "http://h:99999/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if err != nil {
			return
		}
		text := u.String()
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("%q gives %q, which is not printable ASCII", s, text)
		}
		again, err := Parse(text)
		if err != nil || again.String() != text {
			t.Errorf("%q gives %q, which gives %v, %v", s, text, again, err)
		}
		plain, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := policy.ParseTarget(plain.Host, 80); err != nil {
			t.Errorf("%q: host %q: %v", s, plain.Host, err)
		}
	})
}
