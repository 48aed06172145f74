package egress

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// Plain requests find a parent, or the destination itself.
func TestDialPlain(t *testing.T) {
	p := serveParent(t, opened)
	cfg := through(closedPort(t), "user:geheim@"+p.addr)
	cfg.Hosts = map[string]string{"fixed.example": "1.1.1.1"}
	d := dialer(t, cfg)
	for _, host := range []string{"name.example:80", "8.8.8.8:80"} {
		c, via, err := d.DialPlain(t.Context(), target(t, host))
		if err != nil || via == nil || c.RemoteAddr().String() != p.addr {
			t.Fatalf("%s: %v, %v", host, via, err)
		}
		c.Close()
		if got := via.ProxyAuthorization(); got != "Basic dXNlcjpnZWhlaW0=" {
			t.Errorf("%s: %s", host, got)
		}
		if text := fmt.Sprintf("%v %+v", via, via); text != p.addr+" "+p.addr {
			t.Errorf("shown as %s", text)
		}
	}
	c, via, err := d.DialPlain(t.Context(), target(t, "fixed.example:80"))
	if err != nil || via != nil {
		t.Fatalf("fixed.example: %v, %v", via, err)
	}
	echoes(t, c, "")
	if got := p.asked(); !slices.Equal(got, []string{"CONNECT 1.1.1.1:80 HTTP/1.1"}) {
		t.Errorf("asked %q", got)
	}

	d = dialer(t, Config{Allow: []string{"loopback"}})
	c, via, err = d.DialPlain(t.Context(), target(t, p.addr))
	if err != nil || via != nil {
		t.Fatalf("no parent: %v, %v", via, err)
	}
	c.Close()

	gone := dialer(t, through(closedPort(t)))
	var e *ParentError
	if c, _, err := gone.DialPlain(t.Context(), target(t, "name.example:80")); !errors.As(err, &e) || c != nil {
		t.Errorf("gone: %v, %v", c, err)
	}
}
