package forward

import (
	"reflect"
	"testing"

	"golang.org/x/net/http2/hpack"

	"espalier/proxy/http2"
)

// goproxy gets what the client sent.
func TestNewRequest(t *testing.T) {
	r := &http2.Request{Method: "POST", Scheme: "http", Authority: "a.example:80", Path: "/a%2Fb?c=%20", Length: 3, Fields: []hpack.HeaderField{
		{Name: "cookie", Value: "a=1"}, {Name: "x-n", Value: "2"}, {Name: "cookie", Value: "b=2"}, {Name: "x-n", Value: "1"}, {Name: "trailer", Value: "sum, md5"},
	}}
	got := newRequest(t.Context(), r)
	if want := map[string][]string{"Cookie": {"a=1; b=2"}, "X-N": {"2", "1"}, "Trailer": {"sum, md5"}}; !reflect.DeepEqual(map[string][]string(got.Header), want) {
		t.Errorf("header %v, want %v", got.Header, want)
	}
	if u := got.URL.String(); u != "http://a.example:80/a%2Fb?c=%20" || got.Host != "a.example:80" || got.Method != "POST" || got.ContentLength != 3 {
		t.Errorf("got %+v", got)
	}
}
