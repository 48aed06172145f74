package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"espalier/policy"
)

// A rule keeps the URL out of the records of what it matches, whatever becomes of
// that; the host stays.
func TestHideURL(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		o := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r := start(t, setup{
			hosts: map[string]string{"clinic.example": "127.0.0.1", "shop.example": "127.0.0.1"},
			rules: []policy.Rule{
				{Name: "clinic", Then: "allow", HideURL: true, When: policy.When{Hosts: []string{"clinic.example"}}},
				{Name: "no", Then: "deny", HideURL: true, When: policy.When{Hosts: []string{"denied.example"}}},
			},
		})
		for _, method := range []string{"GET", "OPTIONS"} { // the short way, and the general one
			for host, status := range map[string]int{"clinic.example": 200, "shop.example": 200, "denied.example": 403} {
				c := r.dial()
				at := fmt.Sprintf("%s:%d", host, o.Port())
				c.send(method + " http://" + at + "/a/path HTTP/1.1\r\nHost: " + at + "\r\nConnection: close\r\n\r\n")
				if a := c.answer(method); a.StatusCode != status {
					t.Fatalf("%s: %d", host, a.StatusCode)
				}
			}
		}
		list := r.stop()
		if len(list) != 6 {
			t.Fatalf("%d records", len(list))
		}
		for _, rec := range list {
			want := ""
			if rec.Host == "shop.example" {
				want = fmt.Sprintf("http://shop.example:%d/a/path", o.Port())
			}
			if rec.URL != want || rec.Host == "" {
				t.Errorf("record of %s has the URL %q, want %q", rec.Host, rec.URL, want)
			}
		}
	})
}

// The list that has a host stands in the record; its URLs match where paths are seen.
func TestListInRecord(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	list := urlList{"example.com/bad"}
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		cfg := site.everything()
		cfg.lists = map[string]policy.HostList{"urls": list}
		cfg.rules = []policy.Rule{{Name: "no bad pages", Then: "deny", When: policy.When{Lists: []string{"urls"}}}}
		r := start(t, cfg)
		for path, status := range map[string]int{"/good": 200, "/bad/page?q": 403} {
			if resp, body := fetch(t, r.browser(), "https://"+site.at("example.com")+path); resp.StatusCode != status || status == 403 && !strings.Contains(body, "no bad pages (urls)") {
				t.Errorf("%s: %s, %q", path, resp.Status, body)
			}
		}
		for _, rec := range r.stop() {
			if denied := rec.Action == policy.Deny; denied != strings.HasSuffix(rec.URL, "/bad/page") || denied && rec.Error != "in list urls" {
				t.Errorf("%+v", rec)
			}
		}
	})
}

// urlList has one URL.
type urlList struct{ url string }

func (urlList) Match(string) (string, bool) { return "", false }
func (urlList) Missing() bool               { return false }
func (l urlList) MatchURL(host string, _ uint16, path string) (string, bool) {
	return l.url, strings.HasPrefix(host+path, l.url)
}
