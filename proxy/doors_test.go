package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"espalier/policy"
)

// doorTest is a proxy before a site by TLS and one in plain, by each of its doors.
type doorTest struct {
	t     *testing.T
	rig   *rig
	site  *site
	plain *answering
	http2 *multiplexer // nil: the proxy speaks HTTP/1.1
}

// get asks for a plain page of host, with another in the Host field if it is not empty, and
// returns the status.
func (d *doorTest) get(host, field string) int {
	at := fmt.Sprintf("%s:%d", host, d.plain.Port())
	if d.http2 == nil {
		c := d.rig.dial()
		defer c.Close()
		if field == "" {
			field = at
		}
		c.send("GET http://" + at + "/ HTTP/1.1\r\nHost: " + field + "\r\n\r\n")
		return c.answer(http.MethodGet).StatusCode
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+at+"/", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := d.http2.conn.RoundTrip(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// by asks for a page behind a CONNECT.
func (d *doorTest) by(connect, sni, host string, want int) error {
	open := d.rig.plainly
	if d.http2 != nil {
		open = d.http2.tunnelTo
	}
	if got := outcome(d.t, d.rig, open, d.site, connect, sni, host); got != want {
		return errors.New(strictnesses[got])
	}
	return nil
}

func (d *doorTest) page(host string) error {
	if status := d.get(host, ""); status != http.StatusOK {
		return errors.New(http.StatusText(status))
	}
	return nil
}

// Every cell that decides is read: without it, its door refuses.
func TestDoorsDecide(t *testing.T) {
	const free, other, looked, address = "free.example", "other.example", "looked.example", "127.0.0.1"
	tunnel := func(connect, sni string) func(*doorTest) error {
		return func(d *doorTest) error { return d.by(connect, sni, free, tunnelled) }
	}
	inside := func(connect string) func(*doorTest) error {
		return func(d *doorTest) error { return d.by(connect, looked, looked, inspected) }
	}
	plain := func(host string) func(*doorTest) error { return func(d *doorTest) error { return d.page(host) } }
	doors := &policy.Doors
	for _, x := range []struct {
		name  string
		cell  *policy.Outcome
		http2 bool
		try   func(*doorTest) error
	}{
		{"CONNECT to a name", &doors.Connect.Connect, false, tunnel(free, free)},
		{"CONNECT to a name by HTTP/2", &doors.Connect.Connect, true, tunnel(free, free)},
		{"CONNECT to an address", &doors.Connect.Literal, false, tunnel(address, "")},
		{"a name in a tunnel", &doors.Connect.SNI, false, tunnel(free, other)},
		{"a name in a tunnel by HTTP/2", &doors.Connect.SNI, true, tunnel(free, other)},
		{"a plain request to a name", &doors.Plain.Connect, false, plain(free)},
		{"a plain request to an address", &doors.Plain.Literal, false, plain(address)},
		{"a plain request by HTTP/2", &doors.HTTP2.Connect, true, plain(free)},
		{"a plain request by HTTP/2 to an address", &doors.HTTP2.Literal, true, plain(address)},
		{"a name in intercepted TLS", &doors.InsideTLS.SNI, false, inside("looked-too.example")},
		{"a name in intercepted TLS by HTTP/2", &doors.InsideTLS.SNI, true, inside("looked-too.example")},
		{"the host of an intercepted request", &doors.InsideTLS.Host, false, inside(looked)},
		{"an intercepted request", &doors.InsideTLS.Connect, false, inside(looked)},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := newDoorTest(t, x.http2)
			if err := x.try(d); err != nil {
				t.Fatal(err)
			}
			d.rig.stop()
			was := *x.cell
			t.Cleanup(func() { *x.cell = was })
			*x.cell = 0
			d = newDoorTest(t, x.http2)
			if x.try(d) == nil {
				t.Error("it passes without an outcome")
			}
			d.rig.stop()
		})
	}
}

func newDoorTest(t *testing.T, http2 bool) *doorTest {
	t.Helper()
	d := &doorTest{t: t, site: newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })}
	d.plain = newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	cfg := setup{
		roots: d.site.roots, inspect: policy.InspectListed, hosts: map[string]string{"*.example": "127.0.0.1"},
		rules: []policy.Rule{{Name: "look", Then: "inspect", When: policy.When{Hosts: []string{"looked.example", "looked-too.example"}}}},
	}
	if !http2 {
		d.rig = start(t, cfg, false)
		return d
	}
	r, trust := secured(t, cfg)
	d.rig, d.http2 = r, r.multiplexer(trust)
	return d
}

// A Host field beside a URL is replaced by HTTP/1.1. HTTP/2 refuses it, as its own tests show.
func TestDoorsHostField(t *testing.T) {
	d := newDoorTest(t, false)
	if status := d.get("free.example", "denied.example"); status != http.StatusOK {
		t.Errorf("HTTP/1.1: %d", status)
	}
	heads, _ := d.plain.seen()
	if len(heads) != 1 || !strings.Contains(heads[0], fmt.Sprintf("\r\nHost: free.example:%d\r\n", d.plain.Port())) {
		t.Errorf("the origin sees %q", heads)
	}
}
