//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("espalier/cmd/espalier-bench.launchLoop"))
}

// relay is a proxy inside the test; tamper may change what it passes on, head
// is what it answers to CONNECT.
func relay(t *testing.T, head string, tamper func(toClient bool, b []byte) []byte) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	pass := func(dst, src net.Conn, toClient bool) {
		defer dst.Close()
		defer src.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := src.Read(buf)
			if n > 0 {
				if _, err := dst.Write(tamper(toClient, buf[:n])); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 4096)
				n, _ := c.Read(buf)
				var addr string
				fmt.Sscanf(string(buf[:n]), "CONNECT %s", &addr)
				io.WriteString(c, head)
				up, err := net.Dial("tcp4", addr)
				if err != nil {
					c.Close()
					return
				}
				go pass(up, c, false)
				pass(c, up, true)
			}()
		}
	}()
	return ln.Addr().String()
}

const established = "HTTP/1.1 200 OK\r\n\r\n"

func honest(_ bool, b []byte) []byte { return b }

// testBed is a bed around a proxy inside the test.
func testBed(t *testing.T, addr string) *bed {
	t.Helper()
	o, err := startOrigin("127.0.0.1:0", tls.Certificate{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return &bed{
		addr: addr, pid: os.Getpid(), proc: "/proc", origin: o,
		load: load{window: 50 * time.Millisecond, opens: 20, concurrency: 4, streams: 2, idle: 10, quiet: 20 * time.Millisecond},
	}
}

func TestProxyThatHarmsDataFails(t *testing.T) {
	flip := func(client bool) func(bool, []byte) []byte {
		return func(toClient bool, b []byte) []byte {
			if toClient == client && len(b) > 0 {
				b[len(b)-1] ^= 1
			}
			return b
		}
	}
	tests := []struct {
		name, scenario string
		head           string
		tamper         func(bool, []byte) []byte
		want           string
	}{
		{"message flipped downwards", "open", established, flip(true), "corrupt data"},
		{"message flipped upwards", "open", established, flip(false), "corrupt data"},
		{"bulk flipped downwards", "bulk-down", established, flip(true), "corrupt data"},
		{"bulk flipped upwards", "bulk-up", established, flip(false), "corrupt data"},
		{"round trip flipped", "rtt", established, flip(true), "corrupt data"},
		{"refused", "open", "HTTP/1.1 403 Forbidden\r\n\r\n", honest, "403"},
		{"no HTTP", "open", "SSH-2.0-OpenSSH\r\n\r\n", honest, "SSH-2.0"},
		{"bytes of its own behind the head", "open", established + "x", honest, "1 bytes behind the answer"},
		{"nothing comes", "bulk-down", established, func(toClient bool, b []byte) []byte {
			if toClient {
				return nil
			}
			return b
		}, "nothing moved"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := testBed(t, relay(t, tt.head, tt.tamper))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := scenarioNamed(t, tt.scenario).run(ctx, b)
			got := fmt.Sprint(b.origin.Close(), err)
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want it to say %q", got, tt.want)
			}
		})
	}
}

func TestHonestProxyPasses(t *testing.T) {
	for _, name := range []string{"open", "bulk-down", "bulk-up", "rtt", "rtt-sparse", "rtt-bulk", "idle"} {
		t.Run(name, func(t *testing.T) {
			b := testBed(t, relay(t, established, honest))
			v, err := scenarioNamed(t, name).run(t.Context(), b)
			if err != nil || len(v) == 0 {
				t.Errorf("got %v, %v", v, err)
			}
			if err := b.origin.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func scenarioNamed(t *testing.T, name string) scenario {
	t.Helper()
	for _, s := range scenarios {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("no scenario %q", name)
	return scenario{}
}

func TestPattern(t *testing.T) {
	for _, pos := range []int64{0, 1, patternPeriod - 1, patternPeriod, 1 << 40} {
		if err := checkPattern(7, pos, pattern(7, pos, chunk)); err != nil {
			t.Errorf("at %d: %v", pos, err)
		}
	}
	long := append(bytes.Clone(pattern(7, 0, chunk)), pattern(7, chunk, 9)...)
	if err := checkPattern(7, 0, long); err != nil {
		t.Errorf("longer than a chunk: %v", err)
	}
	long[chunk+3] ^= 0x80
	if err := checkPattern(7, 100, long[:0]); err != nil {
		t.Errorf("nothing: %v", err)
	}
	if err := checkPattern(7, 0, long); err == nil || !strings.Contains(err.Error(), fmt.Sprint(chunk+3)) {
		t.Errorf("a flipped bit at %d: got %v", chunk+3, err)
	}
	if err := checkPattern(8, 0, pattern(7, 0, 64)); err == nil {
		t.Error("another stream passes")
	}
	if err := checkPattern(7, 1<<16, pattern(7, 0, 64)); err == nil {
		t.Error("a shifted stream passes")
	}
}

func TestParseRequest(t *testing.T) {
	tests := []struct {
		name, head string
		size       int64
		seed       uint32
		keep       bool
		upload     int
		fails      bool
	}{
		{name: "origin form", head: "GET /1024/7 HTTP/1.1\r\nHost: a\r\n\r\n", size: 1024, seed: 7, keep: true},
		{name: "absolute form", head: "GET http://127.0.0.1:9/1024/7 HTTP/1.1\r\n\r\n", size: 1024, seed: 7, keep: true},
		{name: "close", head: "GET /1/2 HTTP/1.1\r\nConnection: Close\r\n\r\n", size: 1, seed: 2},
		{name: "HTTP/1.0", head: "GET /1/2 HTTP/1.0\r\n\r\n", size: 1, seed: 2},
		{name: "HTTP/1.0 kept", head: "GET /1/2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", size: 1, seed: 2, keep: true},
		{name: "POST", head: "POST /1/2 HTTP/1.1\r\nContent-Length: 7\r\n\r\n", size: 1, seed: 2, upload: 7, keep: true},
		{name: "another method", head: "PUT /1/2 HTTP/1.1\r\n\r\n", fails: true},
		{name: "another path", head: "GET /favicon.ico HTTP/1.1\r\n\r\n", fails: true},
		{name: "negative", head: "GET /-1/2 HTTP/1.1\r\n\r\n", fails: true},
		{name: "no version", head: "GET /1/2\r\n\r\n", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			size, seed, upload, keep, err := parseRequest(tt.head)
			if (err != nil) != tt.fails || size != tt.size || seed != tt.seed || upload != tt.upload || keep != tt.keep {
				t.Errorf("got %d, %d, %d, %v, %v", size, seed, upload, keep, err)
			}
		})
	}
}

func TestParseTarget(t *testing.T) {
	tests := []struct {
		in     string
		pid    int
		direct bool
		fails  string
	}{
		{in: "mine=127.0.0.1:3128,pid=7", pid: 7},
		{in: "mine=127.0.0.1:3128,pid=7,mode=tcp", pid: 7, direct: true},
		{in: "127.0.0.1:3128,pid=7", fails: "is no target"},
		{in: "mine=127.0.0.1,pid=7", fails: "is no target"},
		{in: "mine=127.0.0.1:3128", fails: "pid is missing"},
		{in: "mine=127.0.0.1:3128,pid=x", fails: "is no pid"},
		{in: "mine=127.0.0.1:3128,pid=7,mode=udp", fails: "is unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			p, err := parseTarget(tt.in)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("got %v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil || p.name != "mine" || p.addr != "127.0.0.1:3128" || p.pid != tt.pid || p.direct != tt.direct {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
}

func TestBadUsage(t *testing.T) {
	for _, args := range [][]string{
		{"-rounds", "0"}, {"-peers", "nginx"}, {"-scenarios", "openn"}, {"-target", "x"}, {"-nofile", "10"}, {"-duration", "0s"}, {"stray"}, {"-nosuch"},
	} {
		var out strings.Builder
		if code := command(t.Context(), args, io.Discard, &out); code != 2 || out.Len() == 0 {
			t.Errorf("%v: exit %d, %q", args, code, out.String())
		}
	}
}

// small makes the bench quick; what it measures then means nothing.
var small = []string{"-peers", "goproxy", "-rounds", "1", "-duration", "100ms", "-count", "50", "-inspected", "8", "-concurrency", "4", "-streams", "2", "-idle", "50", "-quiet", "100ms"}

func TestAllScenariosAgainstGoproxy(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs a proxy")
	}
	t.Setenv("TMPDIR", t.TempDir())
	// A proxy in the environment must not come between.
	t.Setenv("http_proxy", "http://127.0.0.1:9")
	t.Setenv("https_proxy", "http://127.0.0.1:9")
	out := t.TempDir()
	bin := filepath.Join(out, "goproxy")
	jsonFile, markdownFile := filepath.Join(out, "out.json"), filepath.Join(out, "out.md")

	var log strings.Builder
	p := peers[len(peers)-1]
	if err := p.prepare(t.Context(), out, false); err != nil {
		t.Fatal(err)
	}
	if p.is == "unknown" || p.is == "" {
		t.Errorf("the version of goproxy is %q", p.is)
	}
	args := append([]string{"-goproxy", bin, "-json", jsonFile, "-markdown", markdownFile, "-beside", "5"}, small...)
	if code := command(t.Context(), args, &log, &log); code != 0 {
		t.Fatalf("exit %d:\n%s", code, log.String())
	}
	var r result
	if err := json.Unmarshal([]byte(read(t, jsonFile)), &r); err != nil {
		t.Fatal(err)
	}
	for _, f := range figures {
		if s := r.of("goproxy", f.key); !(s.median >= 0 || f.key == "idle-slab" || f.key == "idle-kb") {
			t.Errorf("%s is %v", f.key, s.median)
		}
	}
	if got := r.of("goproxy", "idle-fds").median; got < 5 {
		t.Errorf("an idle tunnel of goproxy holds %v descriptors, want its 2 sockets and 2 pipes", got)
	}
	if got := read(t, markdownFile); !strings.Contains(got, "| open, use, close a tunnel") {
		t.Errorf("markdown:\n%s", got)
	}
	nothingLeft(t)

	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var log strings.Builder
		// The first sample that ends interrupts the run.
		stop := writerFunc(func(b []byte) (int, error) {
			if strings.HasPrefix(string(b), "round 1 of 1000") {
				cancel()
			}
			return log.Write(b)
		})
		args := append([]string{"-goproxy", bin}, append(small, "-rounds", "1000", "-scenarios", "open")...)
		if code := command(ctx, args, io.Discard, stop); code != 1 || !strings.Contains(log.String(), "not complete") {
			t.Errorf("exit %d:\n%s", code, log.String())
		}
		nothingLeft(t)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// nothingLeft checks that no child process and no file stayed behind.
func nothingLeft(t *testing.T) {
	t.Helper()
	pids, err := procfs("/proc").tree(os.Getpid())
	if err != nil || len(pids) != 1 {
		t.Errorf("processes left: %v, %v", pids, err)
	}
	left, err := os.ReadDir(os.TempDir())
	if err != nil || len(left) != 0 {
		t.Errorf("files left: %v, %v", left, err)
	}
}
