package web

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"espalier/proxy/inspect"
	"espalier/proxy/traffic"
	"espalier/web/api"
)

func TestExceptions(t *testing.T) {
	dir := shortDir(t)
	c := testControl()
	var err error
	if c.Exceptions, err = inspect.OpenExceptions(dir); err != nil {
		t.Fatal(err)
	}
	c.Exceptions.SetDuration(time.Hour)
	ipad := netip.MustParseAddr("10.1.2.3")
	for range 2 {
		c.Exceptions.Succeeded(inspect.Pair{Host: "www.example", Name: "www.example"}, ipad)
		c.Exceptions.Refused(inspect.Pair{Host: "app.example", Name: "app.example"}, ipad, inspect.ByAlert, "unknown CA")
	}
	defer serveControl(t, dir, c)()
	client := NewControlClient(dir)

	states := func() string {
		t.Helper()
		list, err := client.Exceptions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, x := range list {
			out = append(out, x.Host+" "+x.State)
		}
		return strings.Join(out, ", ")
	}
	for _, tt := range []struct{ do, host, err, want string }{
		{api.AcceptException, "App.Example.", "", "app.example accepted"},
		{api.RefuseException, "app.example", "", "app.example refused"},
		{api.ForgetException, "app.example", "", ""},
		{api.ForgetException, "app.example", "app.example is not among the exceptions", ""},
		{api.RefuseException, "*.Google.com", "", "*.google.com refused"},
		{api.ForgetException, "*.google.com", "", ""},
		{api.AcceptException, "a..b", `invalid host: "a..b" is no host pattern: host has an empty label (allowed: a name, *.name, an address or a CIDR block)`, ""},
		{"praise", "app.example", `"praise" cannot be done with an exception`, ""},
	} {
		err := client.ChangeException(t.Context(), tt.do, tt.host)
		if err == nil && tt.err != "" || err != nil && err.Error() != tt.err {
			t.Errorf("%s %s: error %v, want %s", tt.do, tt.host, err, tt.err)
		}
		if got := states(); got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.do, tt.host, got, tt.want)
		}
	}
}

func TestExceptionsAPI(t *testing.T) {
	srv := adminServer(t, testStatus, traffic.New())
	resp, body := get(t, srv, http.MethodGet, "/api/v1/inspect/exceptions", "")
	var list api.ExceptionList
	if err := json.Unmarshal([]byte(body), &list); err != nil || resp.StatusCode != 200 || list.Exceptions == nil {
		t.Errorf("%s %s (%v)", resp.Status, body, err)
	}
	if resp, body := get(t, srv, http.MethodPost, "/api/v1/inspect/exceptions/accept?host=app.example", ""); resp.StatusCode != 204 {
		t.Errorf("POST: %s %s", resp.Status, body)
	}
}
