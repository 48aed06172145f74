package proxy

import (
	"fmt"
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
