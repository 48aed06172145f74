package app

import (
	"net/netip"
	"testing"

	"espalier/configs"
	"espalier/pac"
	"espalier/pac/history"
)

// Each site's script is kept when it changes, and not again at the next start.
func TestKeepScripts(t *testing.T) {
	cfg := &configs.Config{PAC: pac.Config{
		Routes: pac.Routes{Apple: []string{"proxy"}, AppleUnmarked: []string{"proxy"}, Internal: []string{"direct"}, Default: []string{"proxy"}},
		Sites:  map[string]pac.Site{"school": {Clients: []string{"10.0.0.0/8"}, Proxies: []string{"school.example:80"}}},
	}}
	store := history.New(t.TempDir())
	sites := func() (list []string) {
		t.Helper()
		compiled, err := CompilePAC(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := keepScripts(store, compiled, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.8:3128")}, "0123456789abcdef"); err != nil {
			t.Fatal(err)
		}
		entries, err := store.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, e.Site)
		}
		return list
	}
	for range 2 {
		if got := sites(); len(got) != 2 {
			t.Errorf("kept for %q, want one for each site", got)
		}
	}
	school := cfg.PAC.Sites["school"]
	school.Proxies = []string{"other.example:80"}
	cfg.PAC.Sites = map[string]pac.Site{"school": school}
	if got := sites(); len(got) != 3 || got[2] != "school" {
		t.Errorf("after a change of school: %q", got)
	}

	// Loopback alone is no address of a proxy, which is no mistake.
	cfg.PAC.Sites = nil
	compiled, err := CompilePAC(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := keepScripts(store, compiled, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:3128")}, ""); err != nil {
		t.Error(err)
	}
}
