package policy

import (
	"strings"
	"testing"
)

// Rules compare names of a directory's users by key, and those of other users as written.
// A rule that denies a user does so however the directory or the rule writes the name.
func TestDecideUsersBySource(t *testing.T) {
	fold := func(name string) (string, bool) { return strings.ToLower(name), name != "Ivy" } // Ivy is of a file
	p, err := New(Config{
		Clients: []string{"private"}, Auth: true, FoldUser: fold,
		Rules: []Rule{{Name: "not for them", Then: "deny", When: When{Users: []string{"Alice", "bob", "Ivy"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	www, err := ParseTarget("www.example:443", 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Action{
		"Alice": Deny, "alice": Deny, "ALICE": Deny, "BOB": Deny, "Ivy": Deny, "ivy": Tunnel, "carol": Tunnel, "": Challenge,
	} {
		r := &Request{Target: www, Client: ipad, User: name, Connect: true}
		if d := p.Decide(r); d.Action != want {
			t.Errorf("%q: %s by %s, want %s", name, d.Action, d.Rule, want)
		}
	}
}
