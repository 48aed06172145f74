package web

import (
	"strings"
	"testing"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/traffic"
	"espalier/web/api"
)

// The first page is of the last day, so that it says the same after a restart;
// where the store does not tell, it is of what was counted since the start.
func TestOverviewIsOfTheLastDay(t *testing.T) {
	live := traffic.New()
	live.Service("push").AddDown(7_000_000)
	live.Service("push").Request(policy.Tunnel)
	live.Service("push").TunnelOpened()
	a := newAPI(t, func(c *api.Control) {
		st := testStatus()
		c.Status, c.Services = func() api.Status { return st }, live.Snapshot
	})
	records := testRecords(3) // the first is denied, the others are of device-setup
	for i := range records {
		records[i].Up, records[i].Down = 1_000_000, 2_000_000
	}
	old := testRecords(1)[0]
	old.Time, old.Service, old.Down = time.Now().Add(-48*time.Hour), "icloud", 9e9
	a.add(append(records, old)...)
	expect := func(when string, want, miss []string) {
		t.Helper()
		resp, page := get(t, a.srv, "GET", "/", "")
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", when, resp.Status)
		}
		// Without blanks, as they are for people.
		page = strings.Join(strings.Fields(page), " ")
		for _, text := range want {
			if !strings.Contains(page, text) {
				t.Errorf("%s: %q is missing", when, text)
			}
		}
		for _, text := range miss {
			if strings.Contains(page, text) {
				t.Errorf("%s: %q is there", when, text)
			}
		}
	}
	expect("with records", []string{
		"Finished requests of the last 24 hours", "<p>6.00 MB</p>", "<p>3.00 MB</p>", "<p>3</p>", "<p>66.7 %</p>", // Apple's share
		`<tr role="row" data-service="push">`, `<span data-live="open">1</span>`, `data-service="device-setup"`, `data-service="` + catalog.Other + `"`,
		`/logs?action=deny&amp;since=24h`, "figure class=\"chart\"", "Top clients", "10.1.2.3",
	}, []string{`data-service="icloud"`, "7.00 MB", "Since the start"})

	if err := a.control.Store.Close(); err != nil {
		t.Fatal(err)
	}
	expect("without an answer of the store", []string{
		"Since the start, 1 h 30 min ago", "<p>7.00 MB</p>", "The store cannot be searched now", `data-service="push"`, "http://192.0.2.10:8080/proxy.pac",
	}, []string{"Finished requests", "figure class=\"chart\"", "Top clients"})
}
