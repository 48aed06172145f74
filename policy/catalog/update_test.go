package catalog

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestUpdate(t *testing.T) {
	row := func(host, service string) Row {
		return Row{Host: host, Ports: []uint16{443}, Transports: []string{"tcp"}, Systems: []string{"ios"}, Service: service,
			Section: sectionOf(service), Purpose: "ours", Proxy: ProxyUnmarked, Source: "article 2023-07"}
	}
	with := func(r Row, change func(*Row)) Row { change(&r); return r }
	a, b, c := row("a.example", "icloud"), row("b.example", "siri"), row("c.example", "dns")
	for _, tt := range []struct {
		name    string
		edition string
		known   []Row
		rows    []Row
		want    string
		update  string // retired; listed again; newer
	}{
		{"the order and words of the catalogue", "2026-08", []Row{a, b}, []Row{with(b, func(r *Row) { r.Purpose, r.Source = "theirs", "new" }), a},
			`a.example icloud "ours" article 2023-07 until= since=; b.example siri "ours" new until= since=`, ""},
		{"new rows at the end", "2026-08", []Row{a, b}, []Row{with(c, func(r *Row) { r.Purpose = "theirs" }), a, b},
			`a.example icloud "ours" article 2023-07 until= since=; b.example siri "ours" article 2023-07 until= since=; c.example dns "theirs" article 2023-07 until= since=2026-08`, ""},
		{"no longer listed", "2026-08", []Row{a, b}, []Row{b},
			`a.example icloud "ours" article 2023-07 until=2026-08 since= (no longer listed); b.example siri "ours" article 2023-07 until= since=`, "a.example"},
		{"no longer listed, edition not known", "", []Row{a, b}, []Row{b},
			`a.example icloud "ours" article 2023-07 until=after 2023-07 since= (no longer listed); b.example siri "ours" article 2023-07 until= since=`, "a.example"},
		{"retired before", "2026-08", []Row{with(a, func(r *Row) { r.Until, r.Note = "2024-09", "renamed" }), b}, []Row{b},
			`a.example icloud "ours" article 2023-07 until=2024-09 since= (renamed); b.example siri "ours" article 2023-07 until= since=`, ""},
		{"listed again", "2026-08", []Row{with(a, func(r *Row) { r.Until, r.Note = "2024-09", "renamed" }), b}, []Row{a, b},
			`a.example icloud "ours" article 2023-07 until= since= (renamed); b.example siri "ours" article 2023-07 until= since=`, "; a.example"},
		{"an older edition retires nothing that is newer", "2023-07", []Row{a, with(b, func(r *Row) { r.Since = "2024-07" }), with(c, func(r *Row) { r.Since = "after 2023-07" })}, []Row{a},
			`a.example icloud "ours" article 2023-07 until= since=; b.example siri "ours" article 2023-07 until= since=2024-07; c.example dns "ours" article 2023-07 until= since=after 2023-07`, "; ; b.example c.example"},
		{"an older edition brings nothing back", "2023-07", []Row{with(a, func(r *Row) { r.Until = "2024-09" }), b}, []Row{a, b},
			`a.example icloud "ours" article 2023-07 until=2024-09 since=; b.example siri "ours" article 2023-07 until= since=`, ""},
		{"another text", "2026-08", []Row{a, b}, []Row{c}, `c.example dns "ours" article 2023-07 until= since=`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, u := (&Article{Edition: tt.edition, Rows: tt.rows}).Update(tt.known)
			var got []string
			for _, r := range rows {
				s := fmt.Sprintf("%s %s %q %s until=%s since=%s", r.Host, r.Service, r.Purpose, r.Source, r.Until, r.Since)
				if r.Note != "" {
					s += " (" + r.Note + ")"
				}
				got = append(got, s)
			}
			if s := strings.Join(got, "; "); s != tt.want {
				t.Errorf("got  %s\nwant %s", s, tt.want)
			}
			hosts := func(rows []Row) string {
				var names []string
				for _, r := range rows {
					names = append(names, r.Host)
				}
				return strings.Join(names, " ")
			}
			if s := strings.TrimRight(hosts(u.Retired)+"; "+hosts(u.Restored)+"; "+hosts(u.Newer), "; "); s != tt.update {
				t.Errorf("update %q, want %q", s, tt.update)
			}
			if u.Alone != (tt.name == "another text") {
				t.Errorf("alone: %t", u.Alone)
			}
		})
	}
}

// A cell for which the article has no column stays as the catalogue has it.
func TestUpdateKeepsWhatTheArticleDoesNotShow(t *testing.T) {
	a, err := Import(strings.NewReader("Certificate validation\nvalid.apple.com\t443\tTCP\n"), Options{Known: Embedded()})
	if err != nil {
		t.Fatal(err)
	}
	rows, _ := a.Update(Embedded())
	got, want := find(t, rows, "valid.apple.com", "certificates"), find(t, Embedded(), "valid.apple.com", "certificates")
	want.Source = "article"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if len(rows) != len(Embedded()) || !slices.ContainsFunc(rows, func(r Row) bool { return r.Host == "ppq.apple.com" && r.Until != "" }) {
		t.Errorf("%d rows, want %d, with those that are not listed retired", len(rows), len(Embedded()))
	}
}
