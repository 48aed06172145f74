package http2_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"espalier/proxy/http2"
)

func TestHTTP(t *testing.T) {
	addr := listen(t, nil, http2.Config{}, http2.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("Trailer", "Sum")
			w.Header().Set("X-Method", r.Method)
			w.Header()["X-Two"] = []string{"2", "1"}
			w.Header().Set("Keep-Alive", "dropped")
			n, _ := io.Copy(w, r.Body)
			w.Header().Set("Sum", fmt.Sprint(n))
			w.Header().Set(http.TrailerPrefix+"More", r.Trailer.Get("Up"))
		case "/early":
			w.Header().Set("Link", "</a>")
			w.WriteHeader(103)
			w.Header().Del("Link")
			w.WriteHeader(201)
			w.WriteHeader(500) // too late
			w.Header().Set("Late", "1")
		case "/none":
			w.Header().Set("Content-Length", "17") // of what was not modified
			w.WriteHeader(304)
			if _, err := w.Write([]byte("x")); err != http.ErrBodyNotAllowed {
				t.Error(err)
			}
		case "/short":
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("short"))
		case "/long":
			w.Header().Set("Content-Length", "1")
			if _, err := w.Write([]byte("long")); err != http.ErrContentLength {
				t.Error(err)
			}
		case "/duplex": // line by line
			in := bufio.NewReader(r.Body)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				fmt.Fprint(w, strings.ToUpper(line))
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Error(err)
				}
			}
		case "/refused": // without its body
			w.WriteHeader(403)
		default:
			fmt.Fprint(w, "hello")
		}
	})))
	base := "http://" + addr.String()
	tr := newTransport(t)
	do := func(t *testing.T, method, path string, body io.Reader, change func(*http.Request)) (*http.Response, string, error) {
		t.Helper()
		req, err := http.NewRequest(method, base+path, body)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(req)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp, string(b), err
	}
	t.Run("short answer has a length", func(t *testing.T) {
		resp, body, err := do(t, "GET", "/", nil, nil)
		if body != "hello" || resp.ContentLength != 5 || err != nil || len(resp.Header) != 1 {
			t.Errorf("got %q, %+v, %v", body, resp, err)
		}
	})
	t.Run("head", func(t *testing.T) {
		if resp, body, err := do(t, "HEAD", "/", nil, nil); body != "" || resp.StatusCode != 200 || err != nil {
			t.Errorf("got %q, %v", body, err)
		}
	})
	t.Run("post with trailers", func(t *testing.T) {
		sent := strings.Repeat("0123456789", 100_000)
		resp, body, err := do(t, "POST", "/echo", io.MultiReader(strings.NewReader(sent)), func(r *http.Request) {
			r.Trailer = http.Header{"Up": {"yes"}}
		})
		if body != sent || err != nil {
			t.Errorf("got %d bytes, %v", len(body), err)
		}
		if resp.Trailer.Get("Sum") != "1000000" || resp.Trailer.Get("More") != "yes" {
			t.Errorf("trailers %v", resp.Trailer)
		}
		if got := resp.Header; !reflect.DeepEqual(got["X-Two"], []string{"2", "1"}) || got.Get("Keep-Alive") != "" {
			t.Errorf("header %v", got)
		}
	})
	t.Run("interim", func(t *testing.T) {
		var link string
		resp, _, err := do(t, "GET", "/early", nil, func(r *http.Request) {
			*r = *r.WithContext(httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error { link = fmt.Sprint(code, h.Get("Link")); return nil },
			}))
		})
		if link != "103</a>" || resp.StatusCode != 201 || resp.Header.Get("Link")+resp.Header.Get("Late") != "" || err != nil {
			t.Errorf("got %q, %+v, %v", link, resp, err)
		}
	})
	t.Run("expect", func(t *testing.T) {
		_, body, err := do(t, "POST", "/echo", strings.NewReader("abc"), func(r *http.Request) { r.Header.Set("Expect", "100-continue") })
		if body != "abc" || err != nil {
			t.Errorf("got %q, %v", body, err)
		}
	})
	t.Run("not modified", func(t *testing.T) {
		// Go's clients miss a body, by the length of what was not modified.
		if resp, _, _ := do(t, "GET", "/none", nil, nil); resp.StatusCode != 304 || resp.Header.Get("Content-Length") != "17" {
			t.Errorf("got %+v", resp)
		}
	})
	t.Run("shorter than announced", func(t *testing.T) {
		if _, body, err := do(t, "GET", "/short", nil, nil); err == nil {
			t.Errorf("got %q for the whole", body)
		}
	})
	t.Run("longer than announced", func(t *testing.T) {
		req, _ := http.NewRequest("GET", base+"/long", nil)
		if resp, err := tr.RoundTrip(req); err == nil {
			if b, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("got %q for the whole", b)
			}
			resp.Body.Close()
		}
	})
	t.Run("answered early", func(t *testing.T) {
		resp, _, err := do(t, "POST", "/refused", bytes.NewReader(make([]byte, 10<<20)), nil)
		if resp.StatusCode != 403 || err != nil {
			t.Errorf("got %+v, %v", resp, err)
		}
	})
	t.Run("full duplex", func(t *testing.T) {
		in, out := io.Pipe()
		req, _ := http.NewRequest("POST", base+"/duplex", in)
		go func() { fmt.Fprintln(out, "first") }()
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		for _, want := range []string{"FIRST\n", "SECOND\n", "THIRD\n"} {
			if got, err := lines.ReadString('\n'); got != want || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			go fmt.Fprintln(out, map[string]string{"FIRST\n": "second", "SECOND\n": "third"}[want])
		}
		out.Close()
	})
}

// What a handler gets is what the client sent.
func TestHTTPRequest(t *testing.T) {
	var got *http.Request
	p := newPeer(t, http2.Config{}, http2.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r })))
	p.request(1, true, fields(":method", "GET", ":scheme", "http", ":authority", "a.example:80", ":path", "/a%2Fb?c=%20",
		"cookie", "a=1", "x-n", "2", "cookie", "b=2", "x-n", "1", "trailer", "sum, md5"))
	p.expect("HEADERS 1 200 end")
	if want := (http.Header{"Cookie": {"a=1; b=2"}, "X-N": {"2", "1"}, "Trailer": {"sum, md5"}}); !reflect.DeepEqual(got.Header, want) {
		t.Errorf("header %v, want %v", got.Header, want)
	}
	if u := got.URL.String(); u != "http://a.example:80/a%2Fb?c=%20" || got.Host != "a.example:80" || got.RequestURI != "/a%2Fb?c=%20" || !got.ProtoAtLeast(2, 0) {
		t.Errorf("got %+v", got)
	}
	if got.ContentLength != 0 || got.Body != http.NoBody {
		t.Errorf("got %+v", got)
	}
	if got.Context().Err() == nil {
		t.Error("the context outlives the request")
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

// Connection: close in an answer ends the connection when its streams have.
func TestHTTPClose(t *testing.T) {
	p := newPeer(t, http2.Config{}, http2.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
	})))
	p.request(1, true, get)
	p.expect("GOAWAY 2147483647 NO_ERROR", "PING drain", "HEADERS 1 200 end")
	p.must(p.framer.WritePing(true, [8]byte{'d', 'r', 'a', 'i', 'n'}))
	p.expect("GOAWAY 1 NO_ERROR", "closed")
}

func TestHTTPDeadlines(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, http2.Config{}, http2.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := http.NewResponseController(w)
			if err := errors.Join(c.SetReadDeadline(time.Now().Add(time.Second)), c.SetWriteDeadline(time.Now().Add(time.Minute)), c.EnableFullDuplex()); err != nil {
				t.Error(err)
			}
			if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			if n, err := w.Write(make([]byte, 100_000)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("wrote %d, %v", n, err)
			}
		})))
		p.request(1, false, get)
		for f := p.next(); f != "RST_STREAM 1 INTERNAL_ERROR"; f = p.next() {
			if f == "closed" {
				t.Fatal(f)
			}
		}
		synctest.Wait()
		p.conn.Close()
	})
}

// curl and nghttp2 take what the server says, with and without TLS.
func TestOtherClients(t *testing.T) {
	big := strings.Repeat("0123456789", 200_000)
	h := http2.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			_, _ = io.Copy(w, r.Body)
			return
		}
		if r.URL.Path == "/" {
			fmt.Fprint(w, big)
		}
	}))
	for scheme, inside := range map[string]*tls.Config{"http": nil, "https": selfSigned(t)} {
		base := scheme + "://" + listen(t, inside, http2.Config{}, h).String()
		for _, tt := range []struct {
			name, stdin, want string
			args              []string
		}{
			{"curl", "", big, []string{"-sSk", "--http2-prior-knowledge", base + "/"}},
			{"curl", big, big, []string{"-sSk", "--http2-prior-knowledge", "--data-binary", "@-", "-H", "Expect: 100-continue", base + "/"}},
			{"nghttp", "", big, []string{"--no-verify-peer", base + "/"}},
			{"h2load", "", "2000 succeeded, 0 failed", []string{"-n", "2000", "-c", "4", "-m", "100", base + "/small"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				if _, err := exec.LookPath(tt.name); err != nil {
					if os.Getenv("CI") != "" {
						t.Fatal(err)
					}
					t.Skip(err)
				}
				cmd := exec.Command(tt.name, tt.args...)
				cmd.Stdin = strings.NewReader(tt.stdin)
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(string(out), tt.want) {
					t.Errorf("%v, %d bytes: %.300s", err, len(out), out)
				}
			})
		}
	}
}
