package policy

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of doors into docs/security.md")

// docs/security.md has the table of doors, and every cell is an outcome.
func TestDoorsAreDocumented(t *testing.T) {
	doors := reflect.ValueOf(Doors)
	evidence := reflect.TypeFor[Door]()
	var table, rule strings.Builder
	table.WriteString("| Evidence |")
	rule.WriteString("|---|")
	for i := range doors.NumField() {
		table.WriteString(" " + doors.Type().Field(i).Tag.Get("doc") + " |")
		rule.WriteString("---|")
	}
	table.WriteString("\n" + rule.String() + "\n")
	used := map[Outcome]bool{}
	for i := range evidence.NumField() {
		table.WriteString("| " + evidence.Field(i).Tag.Get("doc") + " |")
		for j := range doors.NumField() {
			o := doors.Field(j).Field(i).Interface().(Outcome)
			if o.Meaning() == "" {
				t.Errorf("Doors.%s.%s has no outcome", doors.Type().Field(j).Name, evidence.Field(i).Name)
			}
			used[o] = true
			fmt.Fprintf(&table, " %s |", o)
		}
		table.WriteString("\n")
	}
	table.WriteString("\n| Outcome | Meaning |\n|---|---|\n")
	for i := range outcomes {
		if o := Outcome(i); used[o] {
			fmt.Fprintf(&table, "| %s | %s |\n", o, o.Meaning())
		}
	}

	const page, begin, end = "../docs/security.md", "<!-- doors: go test ./policy -run Doors -update -->\n", "<!-- end of doors -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ends := strings.Cut(rest, end)
	if !ok || !ends {
		t.Fatalf("%s has no place for the table", page)
	}
	want := before + begin + table.String() + end + after
	switch {
	case want == string(text):
	case *update:
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s differs from Doors; run go test ./policy -run Doors -update", page)
	}
}

// Every name in TLS is denied on a door without an outcome for it, and so is a request whose
// target no cell lets the policy decide by.
func TestDoorsWithoutOutcomes(t *testing.T) {
	p := names(t, nil)
	r := Request{Target: target(t, "free.example:443"), Client: ipad, Connect: true}
	before := p.Decide(&r)
	for o := range Outcome(len(outcomes)) {
		want := Deny
		if o == Stricter || o == Unseen {
			want = Tunnel
		}
		if d := p.Agree(o, &r, before, target(t, "other.example:443")); d.Action != want {
			t.Errorf("%s: %s by %s, want %s", o, d.Action, d.Rule, want)
		}
		if d := p.Agree(o, &r, before, r.Target); d.Action != Tunnel || d.Rule != before.Rule {
			t.Errorf("%s: the same name is %s by %s", o, d.Action, d.Rule)
		}
	}
	named, address := target(t, "free.example:443"), target(t, "203.0.113.7:443")
	var unknown *Door
	for _, d := range []*Door{unknown, {}, {Connect: Never, Literal: SameHost}} {
		if d.Decides(named) || d.Decides(address) {
			t.Errorf("%+v decides", d)
		}
	}
	var blank Door
	if !blank.Host.Refuses(named, named) || blank.exempts(RuleException) || blank.exempts(RuleClientCertificate) || blank.exempts(RuleWithoutCA) {
		t.Error("a blank door lets through")
	}
}
