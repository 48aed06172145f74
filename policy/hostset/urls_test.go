package hostset

import "testing"

// Entries that are URLs match where paths are seen, by whole segments.
func TestURLs(t *testing.T) {
	s, report := mustParse(t, "http://x.example/bad/\nhttps://x.example/a.sh\ny.example/one/two\nhttp://192.0.2.1:8080/bin\n"+
		"http://whole.example/\nhttps://whole2.example\nhttp://p.example:8443/\nhttp://x.example/%C3%A4\n")
	if report.Bad+report.Skipped > 0 || s.Len() != 8 || s.Paths() != 6 {
		t.Fatalf("%d entries, %d with paths, %+v", s.Len(), s.Paths(), report)
	}
	for _, x := range []struct {
		host  string
		port  uint16
		path  string
		entry string
	}{
		{"x.example", 80, "/bad", "x.example/bad"},
		{"x.example", 443, "/bad/", "x.example/bad"},
		{"x.example", 443, "/bad/deep/er", "x.example/bad"},
		{"x.example", 443, "/badly", ""},
		{"x.example", 443, "/", ""},
		{"x.example", 443, "", ""},
		{"x.example", 8443, "/bad", ""},
		{"a.x.example", 80, "/bad", ""},
		{"x.example", 80, "/a.sh", "x.example/a.sh"},
		{"x.example", 80, "/%C3%A4", "x.example/%C3%A4"},
		{"x.example", 80, "/%c3%a4", "x.example/%C3%A4"},
		{"x.example", 80, "/\u00e4", "x.example/%C3%A4"},
		{"x.example", 80, "/bad?q=1", "x.example/bad"},
		{"x.example", 80, "/?q=/bad", ""},
		{"x.example", 80, "/%62ad", "x.example/bad"},
		{"x.example", 80, "/%62ad/%zz%", "x.example/bad"},
		{"x.example", 80, "/%2562ad", ""},
		{"x.example", 80, "//bad", "x.example/bad"},
		{"x.example", 80, "/ok/../bad/./a", "x.example/bad"},
		{"x.example", 80, "/ok/%2e%2e/bad", "x.example/bad"},
		{"x.example", 80, "/bad/../ok", ""},
		{"y.example", 80, "/one/two", "y.example/one/two"},
		{"y.example", 80, "/one", ""},
		{"192.0.2.1", 8080, "/bin/x", "192.0.2.1:8080/bin"},
		{"192.0.2.1", 80, "/bin/x", ""},
		{"p.example", 8443, "/", "p.example:8443"},
		{"p.example", 8443, "/a", "p.example:8443"},
		{"p.example", 80, "/a", ""},
	} {
		if entry, ok := s.MatchURL(x.host, x.port, x.path); entry != x.entry || ok != (x.entry != "") {
			t.Errorf("%s:%d%s: %q, want %q", x.host, x.port, x.path, entry, x.entry)
		}
		if entry, ok := s.Match(x.host); ok {
			t.Errorf("%s matches without its path: %q", x.host, entry)
		}
	}
	for _, host := range []string{"whole.example", "whole2.example"} {
		if _, ok := s.Match(host); !ok {
			t.Errorf("%s is missing", host)
		}
	}
	_, report = mustParse(t, "http://x.example/?q=1\nhttp://x.example/#a\nftp://x.example/a\nhttp://u:p@x.example/a\nhttp://x.example/*/a\n")
	if report.Skipped != 5 {
		t.Errorf("%+v", report)
	}
	var none *Set
	if _, ok := none.MatchURL("x.example", 80, "/"); ok || none.Paths() != 0 {
		t.Error("a nil set matches")
	}
}
