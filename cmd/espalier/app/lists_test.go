package app

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"espalier/policy"
	"espalier/proxy/egress"
)

const patience = time.Minute

// Lists are fetched where the administrator says, and a redirect leads to no
// place that clients may not go to.
func TestListTransport(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer inside.Close()
	chosen := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, inside.URL, http.StatusFound)
		}
	}))
	defer chosen.Close()
	get := func(cfg egress.Config, url string) error {
		t.Helper()
		cfg.ConnectTimeout = patience
		d, err := egress.New(cfg, egress.Self{})
		if err != nil {
			t.Fatal(err)
		}
		_, target, err := policy.List{URL: url}.Target()
		if err != nil {
			t.Fatal(err)
		}
		client := http.Client{Transport: listTransport(d, nil)(target), Timeout: patience}
		resp, err := client.Get(url)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	_, port, _ := net.SplitHostPort(chosen.Listener.Addr().String())
	hosts := egress.Config{Hosts: map[string]string{"lists.example": "127.0.0.1"}}
	for _, url := range []string{chosen.URL, "http://lists.example:" + port + "/"} {
		if err := get(hosts, url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, ok := errors.AsType[*egress.ForbiddenError](get(hosts, chosen.URL+"/away")); !ok {
		t.Error("a redirect to a loopback address is not refused")
	}

	// Through the second parent, which says no; the first is not there.
	var mu sync.Mutex
	var asked []string
	parent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.RequestURI)
		w.WriteHeader(http.StatusForbidden)
	}))
	defer parent.Close()
	through := egress.Config{Parent: parent.URL}
	if err := get(through, "http://lists.example/a"); err != nil {
		t.Error(err)
	}
	if err := get(through, "https://lists.example/a"); err == nil {
		t.Error("a tunnel that the parent refused")
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"GET http://lists.example/a", "CONNECT lists.example:443"}; !slices.Equal(asked, want) {
		t.Errorf("the parent was asked %q, want %q", asked, want)
	}
}
