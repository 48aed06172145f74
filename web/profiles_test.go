package web

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"espalier/web/api"
	"espalier/web/profile"
)

// newProfiles is an API whose profiles are real; there is no interception CA.
func newProfiles(t *testing.T) *apiTest {
	issuer, err := profile.NewIssuer(profile.Config{Organization: "Example School", Identifier: "org.example.school"})
	if err != nil {
		t.Fatal(err)
	}
	return newAPI(t, func(c *api.Control) {
		c.Profile = func(r profile.Request) ([]byte, error) {
			r.PACURL = "http://proxy.example:8080/" + r.Site
			return issuer.Make(r)
		}
	})
}

func hasOption(body, key string, value bool) bool {
	want := "<key>" + key + "</key>\n\t\t\t\t<false/>"
	if value {
		want = "<key>" + key + "</key>\n\t\t\t\t<true/>"
	}
	return strings.Contains(body, want)
}

func TestProfilesOfTheAPI(t *testing.T) {
	a := newProfiles(t)
	body := a.ask("GET", "/profiles/global-proxy.mobileconfig", nil, 200, nil)
	if !strings.Contains(body, "<string>http://proxy.example:8080/</string>") || strings.Contains(body, "PayloadRemovalDisallowed") ||
		!hasOption(body, "ProxyPACFallbackAllowed", false) || !hasOption(body, "ProxyCaptiveLoginAllowed", true) {
		t.Error(body)
	}
	body = a.ask("GET", "/profiles/bundle.mobileconfig?site=north&fallback=true&captive_login=false&locked=true", nil, 200, nil)
	if !strings.Contains(body, "org.example.school.bundle.north") || !strings.Contains(body, "PayloadRemovalDisallowed") ||
		!hasOption(body, "ProxyPACFallbackAllowed", true) || !hasOption(body, "ProxyCaptiveLoginAllowed", false) {
		t.Error(body)
	}
	for path, want := range map[string]string{
		"network-proxy.mobileconfig?site=north":                                                     "org.example.school.network-proxy.north",
		"restrictions.mobileconfig":                                                                 "allowCloudPrivateRelay",
		"restrictions.mobileconfig?remove_on=2126-01-02T03:04:05Z":                                  "<date>2126-01-02T03:04:05Z</date>",
		"dns.mobileconfig?dns_server=tls://d.example&dns_address=192.0.2.1&dns_address=2001:db8::1": "<string>2001:db8::1</string>",
		"dns.mobileconfig?dns_server=tls://d.example&dns_domain=a.example&dns_locked=true":          "ProhibitDisablement",
	} {
		if body := a.ask("GET", "/profiles/"+path, nil, 200, nil); !strings.Contains(body, want) {
			t.Errorf("%s: no %q in %s", path, want, body)
		}
	}
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/profiles/ca.mobileconfig":                                {404, "there is no CA"},
		"/profiles/wifi.mobileconfig":                              {404, "unknown profile (available: global-proxy.mobileconfig, network-proxy.mobileconfig, ca.mobileconfig, dns.mobileconfig, "},
		"/profiles/dns.mobileconfig":                               {400, "dns-server: missing"},
		"/profiles/dns.mobileconfig?dns_server=x":                  {400, "dns-server: invalid URL"},
		"/profiles/ca.mobileconfig?dns_server=x":                   {400, "there is no parameter"},
		"/profiles/restrictions.mobileconfig?remove_on=x":          {400, "remove_on: invalid time"},
		"/profiles/restrictions.mobileconfig?remove_on=2020-01-01": {400, "remove-on: 2020-01-01T"},
		"/profiles/global-proxy.mobileconfig?site=south":           {404, "site: there is none of that name"},
		"/profiles/global-proxy.mobileconfig?fallback=on":          {400, "neither true nor false"},
		"/profiles/global-proxy.mobileconfig?url=x":                {400, "there is no parameter"},
	} {
		if body := a.ask("GET", path, nil, want.status, nil); !strings.Contains(body, want.text) {
			t.Errorf("%s: %s", path, body)
		}
	}
}

func TestProfilesOfTheConsole(t *testing.T) {
	a := newProfiles(t)
	for _, tt := range []struct {
		name   string
		form   url.Values
		status int
		want   []string
	}{
		{"global proxy", url.Values{"kind": {"global-proxy"}, "fallback": {"true"}, "ssid": {"left over"}}, 200,
			[]string{"com.apple.proxy.http.global", "<true/>", "<false/>"}},
		{"one network", url.Values{"kind": {"wifi"}, "site": {"north"}, "ssid": {"School & Co"}, "encryption": {"WPA3"}, "password": {"a secret word"}, "hidden": {"true"}}, 200,
			[]string{"com.apple.wifi.managed", "<string>School &amp; Co</string>", "<string>WPA3</string>", "<string>a secret word</string>", "http://proxy.example:8080/north"}},
		{"one network, with the CA", url.Values{"kind": {"wifi"}, "ca": {"true"}, "ssid": {"School"}, "encryption": {"None"}}, 200,
			[]string{"org.example.school.bundle", "com.apple.wifi.managed"}},
		{"a Mac, with the CA left ticked", url.Values{"kind": {"network-proxy"}, "ca": {"true"}}, 200, []string{"com.apple.SystemConfiguration"}},
		{"for a time, by hardware address", url.Values{"kind": {"wifi"}, "ssid": {"School"}, "encryption": {"None"}, "fixed_mac": {"true"}, "remove_on": {"2126-06-30"}}, 200,
			[]string{"DisableAssociationMACRandomization", "<date>2126-06-"}},
		{"a time that is none", url.Values{"kind": {"global-proxy"}, "remove_on": {"soon"}}, 400, []string{"remove_on: invalid time"}},
		{"a control byte", url.Values{"kind": {"wifi"}, "ssid": {"a\x01"}, "encryption": {"None"}}, 400, []string{"ssid: "}},
		{"no network", url.Values{"kind": {"wifi"}}, 400, []string{"ssid: "}},
		{"a short password", url.Values{"kind": {"wifi"}, "ssid": {"School"}, "password": {"short"}}, 400, []string{"password: must have"}},
		{"a kind that is none", url.Values{"kind": {"vpn\r\nX: y"}}, 400, []string{"kind: "}},
		{"a site that is none", url.Values{"kind": {"global-proxy"}, "site": {"south"}}, 404, []string{"site: "}},
		{"no CA", url.Values{"kind": {"ca"}}, 404, []string{"there is no CA"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := a.srv.Client().PostForm(a.srv.URL+"/pac/profile", tt.form)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.status {
				t.Fatalf("%s, %v\n%s", resp.Status, err, body)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(body), want) {
					t.Errorf("no %q in\n%s", want, body)
				}
			}
			if got := resp.Header.Get("Content-Type"); tt.status == 200 && got != profile.ContentType {
				t.Errorf("Content-Type: %s", got)
			}
			if !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment;") && tt.status == http.StatusOK {
				t.Error("a browser would show it")
			}
		})
	}
}
