package accesslog

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"espalier/policy"
)

var update = flag.Bool("update", false, "write the golden files")

// samples are records by name, as the proxy makes them and as attackers would
// like them.
var samples = []struct {
	name string
	rec  Record
}{
	{"tunnel", Record{
		Time: time.Date(2026, 3, 4, 5, 6, 7, 89_999_999, time.FixedZone("CET", 3600)), ID: 0x0123456789abcdef,
		Client: netip.MustParseAddr("10.20.30.40"), Method: "CONNECT",
		Host: "1-courier.push.apple.com", Port: 5223, Service: "push", Action: policy.Tunnel, Rule: "apple",
		Status: 200, Up: 1234, Down: 56789, Duration: 36*time.Hour + 1234567*time.Nanosecond, Connect: 12345 * time.Microsecond,
		Upstream: netip.MustParseAddrPort("17.57.146.20:5223"),
	}},
	{"forward", Record{
		Time: time.Unix(1_700_000_000, 5e6), ID: 1, Client: netip.MustParseAddr("2001:db8:1:2:3::4"), User: "anna@example.org",
		Method: "GET", Host: "www.example.org", Port: 80, URL: "http://www.example.org/a%20b", Service: "other",
		Action: policy.Forward, Rule: "default", Status: 304, Duration: 1500 * time.Microsecond,
		Upstream: netip.MustParseAddrPort("[2001:db8::80]:80"), Agent: "Mozilla/5.0 (iPad)",
	}},
	{"deny", Record{
		Time: time.Unix(1_700_000_001, 0), ID: 2, Client: netip.MustParseAddr("::ffff:192.0.2.7"), Method: "CONNECT",
		Host: "2001:db8::1", Port: 443, Service: "other", Action: policy.Deny, Rule: "no literals", Status: 403,
	}},
	{"challenge", Record{
		Time: time.Unix(1_700_000_002, 0), ID: 3, Client: netip.MustParseAddr("192.0.2.7"), Method: "CONNECT",
		Host: "example.org", Port: 443, Service: "other", Action: policy.Challenge, Rule: "auth", Status: 407,
	}},
	{"inspect connect", Record{
		Time: time.Unix(1_700_000_003, 0), ID: 4, Client: netip.MustParseAddr("192.0.2.7"), Method: "CONNECT",
		Host: "example.org", Port: 443, Service: "other", Action: policy.Inspect, Rule: "inspect", Status: 200,
	}},
	{"inspect request", Record{
		Time: time.Unix(1_700_000_003, 0), ID: 5, Client: netip.MustParseAddr("192.0.2.7"), Method: "POST",
		Host: "example.org", Port: 443, URL: "https://example.org/login", Service: "other", Action: policy.Inspect,
		Rule: "inspect", Status: 200, Up: 5, Down: 7, Upstream: netip.MustParseAddrPort("198.51.100.1:443"),
	}},
	{"error", Record{
		Time: time.Unix(1_700_000_004, 0), ID: 6, Client: netip.MustParseAddr("192.0.2.7"), Method: "CONNECT",
		Host: "gone.example.org", Port: 443, Service: "other", Action: policy.Error, Rule: "default", Status: 502,
		Connect: 3 * time.Millisecond, Error: "lookup gone.example.org: no such host",
	}},
	{"injection", Record{
		Time: time.Unix(1_700_000_005, 0), ID: 7, Client: netip.MustParseAddr("fe80::1%eth0 x"), User: "a b%20\n{}",
		Method: "GET\r\nX", Host: "fe80::1%a b\"", Port: 80, URL: "http://x/\"}\n{\"time\":\"\x00\x1b[31m\x7f\u0085\u2028\xff",
		Service: "other", Action: policy.Deny, Rule: "default", Status: 403,
		Agent: "a\tb\\c\"d\r\n", Error: "\xc3\x28",
	}},
	{"zero", Record{}},
	{"long", Record{
		Time: time.Unix(1_700_000_006, 0), ID: 8, URL: strings.Repeat("u", 5000),
		Agent: strings.Repeat("å", 500) + "x", Error: "x" + strings.Repeat("å", 500),
	}},
}

func TestGolden(t *testing.T) {
	for format, enc := range map[string]encoder{"json": newJSONEncoder("node-1"), "squid": squidEncoder{}} {
		t.Run(format, func(t *testing.T) {
			var got []byte
			for _, s := range samples {
				got = enc.append(got, &s.rec)
			}
			file := filepath.Join("testdata", "access."+format)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
			if len(gotLines) != len(samples)+1 {
				t.Fatalf("%d records make %d lines", len(samples), len(gotLines)-1)
			}
			for i, s := range samples {
				if i >= len(wantLines) || gotLines[i] != wantLines[i] {
					t.Errorf("%s:\n got %s\nwant %s", s.name, gotLines[i], wantLines[min(i, len(wantLines)-1)])
				}
			}
		})
	}
}

// fields are the keys of the contract, in order.
var fields = []string{
	"time", "id", "node", "client", "user", "method", "host", "port", "url", "service", "action", "rule",
	"status", "up", "down", "duration_ms", "connect_ms", "upstream", "agent", "error",
}

// keys returns the keys of a JSON object in order.
func keys(t *testing.T, line []byte) []string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(line))
	d.Token() // {
	var keys []string
	for d.More() {
		k, err := d.Token()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		keys = append(keys, k.(string))
		if _, err := d.Token(); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return keys
}

func TestEveryFieldIsAlwaysThere(t *testing.T) {
	enc := newJSONEncoder("n")
	for _, s := range samples {
		if got := keys(t, enc.append(nil, &s.rec)); !reflect.DeepEqual(got, fields) {
			t.Errorf("%s: fields %q", s.name, got)
		}
	}
}

// logged is r as the log keeps it.
func logged(r Record) Record {
	text := func(s string, limit int) string { return strings.ToValidUTF8(valid(clean(s, limit)), "") }
	r.Time = r.Time.UTC().Truncate(time.Millisecond)
	if r.Client.IsValid() {
		r.Client = r.Client.Unmap().WithZone("")
	}
	r.User, r.Method = text(r.User, maxUser), text(r.Method, maxMethod)
	r.Host, r.URL = text(r.Host, maxHost), text(r.URL, maxURL)
	r.Agent, r.Error = text(r.Agent, maxAgent), text(r.Error, maxError)
	r.Duration, r.Connect = r.Duration.Truncate(time.Microsecond), r.Connect.Truncate(time.Microsecond)
	r.Node = "n"
	return r
}

// valid replaces every byte that is no UTF-8, one by one.
func valid(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteRune(r)
	}
	return b.String()
}

func TestReadReturnsWhatWasWritten(t *testing.T) {
	enc := newJSONEncoder("n")
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			var got []Record
			bad, err := Read(bytes.NewReader(enc.append(nil, &s.rec)), func(r *Record) error { got = append(got, *r); return nil })
			if bad != 0 || err != nil || len(got) != 1 {
				t.Fatalf("%d records, %d bad, %v", len(got), bad, err)
			}
			if want := logged(s.rec); got[0] != want {
				t.Errorf("\n got %+v\nwant %+v", got[0], want)
			}
		})
	}
}

func TestAnonymize(t *testing.T) {
	for client, want := range map[string]string{
		"192.0.2.77":            "192.0.2.0",
		"::ffff:192.0.2.77":     "192.0.2.0",
		"2001:db8:1:2:3:4:5:6":  "2001:db8:1::",
		"fe80::1:2:3:4%enp0s25": "fe80::",
	} {
		if got := network(netip.MustParseAddr(client)); got.String() != want {
			t.Errorf("%s: %s, want %s", client, got, want)
		}
	}
	if network(netip.Addr{}).IsValid() {
		t.Error("no client became one")
	}
	var out capture
	l := newLog(Config{Format: "json"}, "n", &out, nop)
	l.anonymize = truncate
	r := samples[1].rec
	l.Write(&r)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r != samples[1].rec {
		t.Error("Write changed the caller's record")
	}
	line := out.String()
	if strings.Contains(line, "anna") || !strings.Contains(line, `"client":"2001:db8:1::","user":""`) {
		t.Error(line)
	}
}

func FuzzEncode(f *testing.F) {
	for _, s := range samples {
		f.Add(s.rec.User, s.rec.Method, s.rec.Host, s.rec.URL, s.rec.Agent, s.rec.Error, int64(s.rec.Duration))
	}
	enc := newJSONEncoder("n")
	f.Fuzz(func(t *testing.T, user, method, host, url, agent, errText string, ns int64) {
		r := Record{
			Time: time.Unix(1_700_000_000, 0), User: user, Method: method, Host: host, URL: url, Agent: agent, Error: errText,
			Duration: time.Duration(ns % int64(1000*time.Hour)).Abs(),
		}
		line := enc.append(nil, &r)
		if !utf8.Valid(line) || bytes.IndexByte(line, '\n') != len(line)-1 || len(line) > maxLine {
			t.Fatalf("not one line of text: %q", line)
		}
		if got := keys(t, line); !reflect.DeepEqual(got, fields) {
			t.Fatalf("fields %q", got)
		}
		var got Record
		if err := got.UnmarshalJSON(line); err != nil {
			t.Fatal(err)
		}
		if want := logged(r); got != want {
			t.Fatalf("\n got %+v\nwant %+v", got, want)
		}
		squid := string(squidEncoder{}.append(nil, &r))
		if n := len(strings.Fields(squid)); n != 10 || strings.Count(squid, "\n") != 1 {
			t.Fatalf("%d fields in %q", n, squid)
		}
		for _, c := range squid[:len(squid)-1] {
			if c < ' ' || c > '~' {
				t.Fatalf("%q in %q", c, squid)
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	enc := newJSONEncoder("n")
	line := enc.append(nil, &samples[0].rec)
	f.Add(line)
	f.Add(append(bytes.Clone(line[:len(line)/2]), "\n{}"...))
	f.Add([]byte("{}\n\nnull\n[]\n{\"time\":\"2026-01-01T00:00:00Z\",\"id\":\"0000000000001\"}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		records := 0
		bad, err := Read(bytes.NewReader(in), func(r *Record) error {
			records++
			enc.append(nil, r)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(in, []byte{'\n'}) + 1; records+bad > n {
			t.Fatalf("%d records and %d bad lines in %d lines", records, bad, n)
		}
	})
}

func TestReadPassesGarbageOver(t *testing.T) {
	line := string(newJSONEncoder("n").append(nil, &samples[0].rec))
	for _, c := range []struct {
		name, in     string
		records, bad int
	}{
		{"nothing", "", 0, 0},
		{"empty lines", "\n \n" + line, 1, 0},
		{"torn in the middle", line + line[:40] + "\n" + line, 2, 1},
		{"torn at the end", line + line[:40], 1, 1},
		{"whole, without newline", line + line[:len(line)-1], 2, 0},
		{"another object", `{"level":"info","msg":"x"}` + "\n" + line, 1, 1},
		{"wrong types", `{"time":1,"id":2}` + "\n" + line, 1, 1},
		{"zeros of a lost block", strings.Repeat("\x00", 5000) + "\n" + line, 1, 1},
		{"a line without end", strings.Repeat("x", 5*maxLine) + "\n" + line, 1, 1},
		{"a last line without end", line + strings.Repeat("x", 5*maxLine), 1, 1},
		{"carriage returns", strings.ReplaceAll(line+line, "\n", "\r\n"), 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			records := 0
			bad, err := Read(strings.NewReader(c.in), func(*Record) error { records++; return nil })
			if err != nil || records != c.records || bad != c.bad {
				t.Errorf("%d records, %d bad, %v; want %d and %d", records, bad, err, c.records, c.bad)
			}
		})
	}
}

func TestIDText(t *testing.T) {
	for _, id := range []ID{0, 1, NextID(), 1<<64 - 1} {
		var got ID
		if err := got.UnmarshalText([]byte(id.String())); err != nil || got != id {
			t.Errorf("%v: %v, %v", id, got, err)
		}
	}
	var id ID
	for _, bad := range []string{"", "000000000000", "00000000000000", "g000000000000", "000000000000u", "000000000000A"} {
		if err := id.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is taken for an id", bad)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for name, enc := range map[string]encoder{"json": newJSONEncoder("n"), "squid": squidEncoder{}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var line []byte
			for b.Loop() {
				line = enc.append(line[:0], &samples[0].rec)
			}
		})
	}
}
