package http2_test

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"espalier/proxy/http2"
)

// Fields holds what HTTP/2 can carry of a header, equal names in their order.
func TestFields(t *testing.T) {
	got := http2.Fields(http.Header{"X-Two": {"2", " 1\t"}, "Connection": {"close"}, "Te": {"gzip"}, "Bad Name": {"x"}, "A": {"line\nfeed", ""}})
	if want := fields("a", "", "x-two", "2", "x-two", "1"); !reflect.DeepEqual(got, []hpack.HeaderField(want)) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzURL(f *testing.F) {
	for _, path := range []string{"/", "*", "/100%", "/a|b\"<>^", "//b/c", "/?", "/??a", "/a?b#c", "/%2f%2F", "//b|c", "/é", "/\xff", "/a%zz?%zz", "/;a=b:c@d"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if !strings.HasPrefix(path, "/") && path != "*" {
			return
		}
		r := http2.Request{Scheme: "https", Authority: "a.example", Path: path}
		u := r.URL()
		got := u.RequestURI()
		if got != path && !strings.HasPrefix(path, "//") || !strings.HasPrefix(got, path[:1]) {
			t.Errorf("%q becomes %q", path, got)
		}
		if want, err := url.Parse("https://a.example" + path); err == nil && !strings.Contains(path, "#") && want.Path != u.Path && path != "*" {
			t.Errorf("%q has the path %q, url.Parse %q", path, u.Path, want.Path)
		}
	})
}
