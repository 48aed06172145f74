package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"espalier/policy"
	"espalier/proxy/exchange"
	"espalier/proxy/http2"
)

// newHTTP2Site is an origin that speaks HTTP/2 only. strict says that it ends the handshake
// of a client that does not offer HTTP/2, as RFC 7301 asks; else it goes on.
func newHTTP2Site(t *testing.T, strict bool, h http2.Handler) *site {
	t.Helper()
	s := newSite(t, nil) // for its certificate
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2"}}
	if strict {
		cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, "h2") {
				return nil, nil
			}
			return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"none of these"}}, nil
		}
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				conn := tls.Server(c, cfg)
				if conn.Handshake() != nil {
					c.Close()
					return
				}
				_ = http2.New(conn, http2.Config{}, h).Serve()
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return &site{Server: s.Server, roots: s.roots, port: l.Addr().(*net.TCPAddr).AddrPort().Port()}
}

// account is a request as it came by HTTP/2: its fields in order of their names, body and
// trailers.
func account(s *http2.Stream, r *http2.Request) string {
	text := func(list []hpack.HeaderField) (b string) {
		slices.SortStableFunc(list, func(a, b hpack.HeaderField) int { return strings.Compare(a.Name, b.Name) })
		for _, f := range list {
			b += " " + f.Name + "=" + f.Value
		}
		return b
	}
	body, err := io.ReadAll(s)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %s://%s%s%s|%s|%s", r.Method, r.Scheme, strings.Split(r.Authority, ":")[0], r.Path, text(r.Fields), body, text(s.Trailers()))
}

func field(name, value string) hpack.HeaderField { return hpack.HeaderField{Name: name, Value: value} }

// A client of HTTP/1 reaches an origin that speaks HTTP/2 only: nothing of requests and
// answers is lost.
func TestHTTP1ToHTTP2Origin(t *testing.T) {
	gone := make(chan string, 1)
	origin := func(s *http2.Stream, r *http2.Request) {
		switch r.Path {
		case "/interim":
			_ = s.WriteHeaders(103, []hpack.HeaderField{field("link", "</a>")}, false)
			_ = s.WriteHeaders(200, []hpack.HeaderField{field("content-length", "2")}, false)
			_, _ = s.Write([]byte("ok"))
			_ = s.CloseWrite()
		case "/expect":
			_ = s.WriteHeaders(100, nil, false)
			said := account(s, r)
			_ = s.WriteHeaders(200, []hpack.HeaderField{field("said", said)}, true)
		case "/trailers":
			_ = s.WriteHeaders(200, []hpack.HeaderField{field("trailer", "sum"), field("b", "2"), field("b", "1")}, false)
			_, _ = s.Write([]byte("body"))
			_ = s.WriteTrailers([]hpack.HeaderField{field("sum", "42"), field("more", "1")})
		case "/304":
			_ = s.WriteHeaders(304, []hpack.HeaderField{field("content-length", "17"), field("etag", `"x"`)}, true)
		case "/empty":
			_ = s.WriteHeaders(200, nil, true)
		case "/cut":
			_ = s.WriteHeaders(200, nil, false)
			_, _ = s.Write([]byte("half"))
			s.Reset(wire.ErrCodeInternal)
		case "/reset":
			s.Reset(wire.ErrCodeInternal)
		case "/wait":
			_ = s.WriteHeaders(200, nil, false)
			_, _ = s.Write([]byte("wait"))
			<-s.Context().Done()
			gone <- "gone"
		default:
			said := account(s, r)
			_ = s.WriteHeaders(200, []hpack.HeaderField{field("said", said)}, r.Method == "HEAD")
			if r.Method != "HEAD" {
				_ = s.CloseWrite()
			}
		}
	}
	for _, tt := range []struct {
		name, request string // with ${host}
		want          string // the answers; of a refusal the status
		status        int
		up, down      int64
		error         string
	}{
		{name: "get", request: "GET /100%|a?b HTTP/1.1\r\nHost: ${host}\r\nX-Two: 2\r\nKeep-Alive: 1\r\nX-Two: 1\r\nUser-Agent: a\r\n\r\n",
			want: "200 chunked said=GET https://example.com/100%|a?b user-agent=a x-two=2 x-two=1||", status: 200},
		{name: "no user agent", request: "GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n", want: "200 chunked said=GET https://example.com/||", status: 200},
		{name: "head", request: "HEAD / HTTP/1.1\r\nHost: ${host}\r\n\r\n", want: "200 said=HEAD https://example.com/||", status: 200},
		{name: "body of a length", request: "POST / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 3\r\n\r\nabc",
			want: "200 chunked said=POST https://example.com/ content-length=3|abc|", status: 200, up: 3},
		{name: "no body", request: "POST / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 0\r\n\r\n",
			want: "200 chunked said=POST https://example.com/ content-length=0||", status: 200},
		{name: "chunks and trailers", request: "PUT / HTTP/1.1\r\nHost: ${host}\r\nTrailer: Sum, X-b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nSum: 1\r\nMore: 2\r\nHost: evil\r\n\r\n",
			want: "200 chunked said=PUT https://example.com/ trailer=Sum, X-b|abc| more=2 sum=1", status: 200, up: 3},
		{name: "interim answer", request: "GET /interim HTTP/1.1\r\nHost: ${host}\r\n\r\n", want: "103 link=</a> 200 content-length=2 ok", status: 200, down: 2},
		{name: "expect", request: "POST /expect HTTP/1.1\r\nHost: ${host}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
			want: "100 200 content-length=0 said=POST https://example.com/expect content-length=2 expect=100-continue|ab|", status: 200, up: 2},
		{name: "trailers of the answer", request: "GET /trailers HTTP/1.1\r\nHost: ${host}\r\n\r\n",
			want: "200 chunked b=2 b=1 trailer=Sum body more=1 sum=42", status: 200, down: 4},
		{name: "HTTP/1.0", request: "GET /trailers HTTP/1.0\r\nHost: ${host}\r\n\r\n", want: "200 b=2 b=1 body", status: 200, down: 4},
		{name: "not modified", request: "GET /304 HTTP/1.1\r\nHost: ${host}\r\n\r\n", want: `304 content-length=17 etag="x"`, status: 304},
		{name: "empty answer", request: "GET /empty HTTP/1.1\r\nHost: ${host}\r\n\r\n", want: "200 content-length=0", status: 200},
		{name: "cut", request: "GET /cut HTTP/1.1\r\nHost: ${host}\r\n\r\n", want: "200 chunked half cut", status: 200, down: 4, error: "INTERNAL_ERROR"},
		{name: "reset", request: "GET /reset HTTP/1.1\r\nHost: ${host}\r\n\r\n", want: "502", status: 502, error: "INTERNAL_ERROR"},
		{name: "client leaves", request: "GET /wait HTTP/1.1\r\nHost: ${host}\r\n\r\n", want: "200 chunked wait gone", status: 200, down: 4, error: exchange.ErrClientClosed.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, strict := range []bool{false, true} {
				t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
					site := newHTTP2Site(t, strict, origin)
					r := start(t, site.everything(), false)
					host := site.at("example.com")
					c := r.connected(host).secure(&tls.Config{RootCAs: r.trusted(), ServerName: "example.com"})
					request := strings.ReplaceAll(tt.request, "${host}", host)
					if _, err := io.WriteString(c, request); err != nil {
						t.Fatal(err)
					}
					if got := readAnswers(t, c, strings.Fields(request)[0], gone); !strings.HasPrefix(got, tt.want) || tt.status != 502 && got != tt.want {
						t.Errorf("answer %q, want %q", got, tt.want)
					}
					c.Close()
					_, inner := byMethod(r.stop())
					if len(inner) != 1 {
						t.Fatalf("records %+v", inner)
					}
					x := inner[0]
					if x.Status != tt.status || x.Up != tt.up || x.Down != tt.down || !strings.Contains(x.Error, tt.error) || (x.Error == "") != (tt.error == "") {
						t.Errorf("record %+v", x)
					}
					if x.Error == "" && x.Action != policy.Inspect || x.Upstream.Port() != site.port {
						t.Errorf("record %+v", x)
					}
				})
			}
		})
	}
}

// Trailers of requests pass, announced or not, to origins of both protocols, and what
// announces them as it came.
func TestHTTP2RequestTrailers(t *testing.T) {
	multiplexed := newHTTP2Site(t, true, func(s *http2.Stream, r *http2.Request) {
		said := account(s, r)
		_ = s.WriteHeaders(200, []hpack.HeaderField{field("said", said)}, true)
	})
	single := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		said := r.Method + " https://example.com/"
		for name := range r.Trailer { // net/http keeps what announces them to itself
			said += " " + strings.ToLower(name) + "=" + r.Trailer.Get(name)
		}
		w.Header().Set("Said", said+" "+string(body))
	}))
	single.StartTLS()
	t.Cleanup(single.Close)
	for _, tt := range []struct {
		name     string
		port     uint16
		announce string
		want     string
	}{
		{"unannounced, HTTP/2", multiplexed.port, "", "POST https://example.com/|up| sum=1"},
		{"announced, HTTP/2", multiplexed.port, "SUM , other", "POST https://example.com/ trailer=SUM , other|up| sum=1"},
		{"unannounced, HTTP/1", single.Listener.Addr().(*net.TCPAddr).AddrPort().Port(), "", "POST https://example.com/ sum=1 up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := &site{Server: multiplexed.Server, roots: multiplexed.roots, port: tt.port}
			r := start(t, site.everything(), false)
			c := r.connected(site.at("example.com")).secure(&tls.Config{RootCAs: r.trusted(), ServerName: "example.com", NextProtos: []string{"h2"}})
			_, _ = io.WriteString(c, wire.ClientPreface)
			framer := wire.NewFramer(c, c)
			framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			_ = framer.WriteSettings()
			list := []hpack.HeaderField{field(":method", "POST"), field(":scheme", "https"), field(":authority", site.at("example.com")), field(":path", "/")}
			if tt.announce != "" {
				list = append(list, field("trailer", tt.announce))
			}
			var block bytes.Buffer
			enc := hpack.NewEncoder(&block)
			head := func(end bool, list ...hpack.HeaderField) {
				block.Reset()
				for _, f := range list {
					_ = enc.WriteField(f)
				}
				_ = framer.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
			}
			head(false, list...)
			_ = framer.WriteData(1, false, []byte("up"))
			head(true, field("sum", "1"))
			for {
				f, err := framer.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				h, ok := f.(*wire.MetaHeadersFrame)
				if !ok {
					continue
				}
				if i := slices.IndexFunc(h.Fields, func(f hpack.HeaderField) bool { return f.Name == "said" }); i < 0 || h.Fields[i].Value != tt.want {
					t.Errorf("answer %v, want %q", h.Fields, tt.want)
				}
				return
			}
		})
	}
}

// readAnswers reads answers to the final one, as text, without what the proxy adds.
func readAnswers(t *testing.T, c *tls.Conn, method string, gone <-chan string) string {
	t.Helper()
	var said []string
	for in := bufio.NewReader(c); ; {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, fmt.Sprint(resp.StatusCode))
		add := func(h http.Header) {
			names := []string{}
			for name := range h {
				if name != "Connection" {
					names = append(names, name)
				}
			}
			slices.Sort(names)
			for _, name := range names {
				for _, v := range h[name] {
					said = append(said, strings.ToLower(name)+"="+v)
				}
			}
		}
		if resp.TransferEncoding != nil {
			said = append(said, "chunked")
		}
		add(resp.Header)
		if resp.StatusCode < 200 {
			continue
		}
		for name := range resp.Trailer {
			said = append(said, "trailer="+name)
		}
		body := make([]byte, 4)
		n, err := io.ReadAtLeast(resp.Body, body, 4)
		if n > 0 {
			said = append(said, string(body[:n]))
		}
		if string(body[:n]) == "wait" {
			tcp := c.NetConn().(*net.TCPConn)
			_ = tcp.SetLinger(0) // by a reset; an end might be that of one direction
			tcp.Close()
			return strings.Join(append(said, <-gone), " ")
		}
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		if err == io.ErrUnexpectedEOF && n == 2 || err == io.EOF {
			err = nil
		}
		if err != nil {
			said = append(said, "cut")
		}
		if n > 0 {
			add(resp.Trailer)
		}
		return strings.Join(said, " ")
	}
}
