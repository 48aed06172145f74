package doctor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/doctor/doctortest"
	"espalier/proxy/egress"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		// Look-ups outlive the probes that gave up waiting, until their own time is over.
		for end := time.Now().Add(10 * time.Second); ; {
			err := goleak.Find()
			if err == nil {
				break
			}
			if time.Now().After(end) {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	os.Exit(code)
}

// staged reaches the ports of a stage where they are in truth.
type staged struct {
	*egress.Dialer
	ports map[uint16]uint16
}

func (s staged) real(t policy.Target) policy.Target {
	t.Port = s.ports[t.Port]
	return t
}

func (s staged) Dial(ctx context.Context, t policy.Target) (net.Conn, error) {
	return s.Dialer.Dial(ctx, s.real(t))
}

func (s staged) DialPlain(ctx context.Context, t policy.Target, _ ...*egress.Parent) (net.Conn, *egress.Parent, error) {
	return s.Dialer.DialPlain(ctx, s.real(t))
}

// newDoctor returns a doctor on a stage of its own.
func newDoctor(t *testing.T, faults map[string]doctortest.Fault, rows ...catalog.Row) *Doctor {
	t.Helper()
	stage := doctortest.Start(t, fmt.Sprintf("127.79.%d.%d", os.Getpid()>>8&0xff, os.Getpid()&0xff), false, faults)
	dialer, err := egress.New(egress.Config{DNS: []string{stage.DNS}, Allow: []string{"loopback"}, ConnectTimeout: 2 * time.Second}, egress.Self{})
	if err != nil {
		t.Fatal(err)
	}
	return &Doctor{Rows: rows, Egress: staged{dialer, stage.Ports}, Roots: stage.Roots, ntpPort: stage.Ports[123], Timeout: 10 * time.Second}
}

func row(host string, ports ...uint16) catalog.Row {
	transports := []string{"tcp"}
	if slices.Contains(ports, 123) {
		transports = []string{"udp"}
	}
	return catalog.Row{Host: host, Ports: ports, Transports: transports, Service: "icloud"}
}

// brief is what matters of a check.
func brief(c Check) string {
	s := fmt.Sprintf("%s %s:%d %s", c.Way, c.Host, c.Port, c.State)
	for _, part := range []string{string(c.Step), string(c.Problem), c.By, c.Note} {
		if part != "" {
			s += "; " + part
		}
	}
	return s
}

func checks(r *Report) []string {
	var out []string
	for _, s := range r.Services {
		for _, c := range s.Checks {
			out = append(out, brief(c))
		}
	}
	return out
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		g, w := "", ""
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("got  %s\nwant %s", g, w)
		}
	}
}

// Whatever is wrong is called by its name, and so is who is at fault.
func TestProblems(t *testing.T) {
	const apples = "Apple's own CA, as it says of itself (Apple Server Authentication CA (Apple Inc.)), not in this machine's roots"
	tests := []struct {
		host  string
		port  uint16
		fault doctortest.Fault
		want  string
	}{
		{"fine.apple.com", 443, 0, "ok"},
		{"fine.apple.com", 80, 0, "ok"},
		{"fine.apple.com", 22, 0, "ok"},
		{"time.apple.com", 123, 0, "ok"},
		{"captive.apple.com", 80, 0, "ok"},
		{"2197.push.apple.com", 2197, 0, "ok"},
		{"5223.push.apple.com", 5223, doctortest.WantsDevice, "ok; " + apples},
		{"private-ca.apple.com", 443, doctortest.ApplesCA, "ok; " + apples},
		{"no-name.apple.com", 443, doctortest.NoName, "broken; name; no-such-name"},
		{"no-name.apple.com", 123, doctortest.NoName, "broken; name; no-such-name"},
		{"no-address.apple.com", 443, doctortest.NoAddress, "broken; name; no-address"},
		{"dns-silent.apple.com", 443, doctortest.DNSSilent, "broken; name; dns-timeout"},
		{"dns-fails.apple.com", 443, doctortest.DNSFails, "broken; name; dns-failed"},
		{"private.apple.com", 443, doctortest.Private, "broken; name; address-guard"},
		{"refuses.apple.com", 443, doctortest.Refuses, "broken; connect; refused"},
		{"refuses.apple.com", 123, doctortest.Refuses, "broken; ntp; refused"},
		{"swallows.apple.com", 443, doctortest.Swallows, "broken; connect; timeout"},
		{"silent.apple.com", 443, doctortest.Silent, "broken; tls; timeout"},
		{"silent.apple.com", 80, doctortest.Silent, "broken; http; timeout"},
		{"intercepted.apple.com", 443, doctortest.Intercepted, "broken; tls; intercepted; " + doctortest.InspectorName},
		{"expired.apple.com", 443, doctortest.Expired, "broken; tls; expired"},
		{"misnamed.apple.com", 443, doctortest.Misnamed, "broken; tls; wrong-name"},
		{"alerts.apple.com", 443, doctortest.Alerts, "broken; tls; tls-alert"},
		{"resets.apple.com", 443, doctortest.Resets, "broken; tls; reset"},
		{"speaks-http.apple.com", 443, doctortest.SpeaksHTTP, "broken; tls; not-tls; something that speaks HTTP"},
		{"portal.apple.com", 80, doctortest.Portal, "broken; http; captive-portal; login.portal.example"},
	}
	faults := map[string]doctortest.Fault{}
	var rows []catalog.Row
	var want []string
	for _, tt := range tests {
		faults[tt.host] = tt.fault
		rows = append(rows, row(tt.host, tt.port))
		want = append(want, fmt.Sprintf("direct %s:%d %s", tt.host, tt.port, tt.want))
	}
	d := newDoctor(t, faults, rows...)
	var told []int
	d.Progress = func(done, total int) { told = append(told, done, total) }
	r := d.Run(t.Context())
	compare(t, checks(r), want)
	if !r.Complete || r.Broken() != 1 || r.Services[0].State != Broken || r.Services[0].Name != "iCloud" {
		t.Errorf("complete %v, %d broken, %+v", r.Complete, r.Broken(), r.Services[0])
	}
	for _, c := range r.Services[0].Checks {
		if c.State == Broken && (c.Detail == "" || c.Next == "") || c.State == OK && c.Address == "" {
			t.Errorf("it does not say enough: %+v", c)
		}
	}
	var steps []int
	for i := range len(tests) + 1 {
		steps = append(steps, i, len(tests))
	}
	if !slices.Equal(told, steps) {
		t.Errorf("progress: %v", told)
	}
}

// through is a proxy that does as it is told with hosts, and connects by e.
func through(t *testing.T, e Egress, answers map[string]string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				serveProxy(c, e, answers)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

func serveProxy(c net.Conn, e Egress, answers map[string]string) {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	t, err := policy.ParseTarget(r.Host, 80)
	if answer := answers[t.Host]; answer != "" || err != nil {
		io.WriteString(c, answer)
		return
	}
	to, err := e.Dial(context.Background(), t)
	if err != nil {
		fmt.Fprintf(c, "HTTP/1.1 502 Bad Gateway\r\nProxy-Status: origin, stage; error=connection_refused\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if r.Method == http.MethodConnect {
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n\r\n")
	} else if err := r.Write(to); err != nil {
		to.Close()
		return
	}
	var up sync.WaitGroup
	up.Go(func() { _, _ = io.Copy(to, c); to.Close() })
	_, _ = io.Copy(c, to)
	c.Close()
	up.Wait()
}

// Through a proxy the same is found, and what the proxy does itself.
func TestThrough(t *testing.T) {
	const denial = "HTTP/1.1 403 Forbidden\r\nProxy-Status: espalier; error=http_request_denied\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" +
		"403 Forbidden\n\nThis network's policy does not allow this destination.\nRule: no \x1bclouds\nReference: x\n"
	answers := map[string]string{
		"signin.apple.com":  "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
		"denied.apple.com":  denial,
		"fails.apple.com":   "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
		"nohttp.apple.com":  "what?\r\n\r\n",
		"endless.apple.com": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead) + "\r\n\r\n",
	}
	d := newDoctor(t, map[string]doctortest.Fault{
		"refuses.apple.com": doctortest.Refuses, "intercepted.apple.com": doctortest.Intercepted,
	},
		row("fine.apple.com", 80, 443, 22), row("time.apple.com", 123), row("refuses.apple.com", 443, 80), row("intercepted.apple.com", 443),
		row("signin.apple.com", 443, 80), row("denied.apple.com", 443, 80), row("fails.apple.com", 443),
		row("nohttp.apple.com", 443), row("endless.apple.com", 443))
	d.Proxy = through(t, d.Egress, answers)
	var got []string
	for _, line := range checks(d.Run(t.Context())) {
		if strings.HasPrefix(line, string(Through)) {
			got = append(got, strings.ReplaceAll(line, d.Proxy, "PROXY"))
		}
	}
	compare(t, got, []string{
		"proxy fine.apple.com:80 ok",
		"proxy fine.apple.com:443 ok",
		"proxy fine.apple.com:22 ok",
		"proxy refuses.apple.com:443 broken; proxy; refused",
		"proxy refuses.apple.com:80 broken; proxy; refused",
		"proxy intercepted.apple.com:443 broken; tls; intercepted; " + doctortest.InspectorName,
		"proxy signin.apple.com:443 broken; proxy; sign-in; the proxy PROXY",
		"proxy signin.apple.com:80 broken; proxy; sign-in; the proxy PROXY",
		"proxy denied.apple.com:443 broken; proxy; denied; the proxy PROXY, rule no  clouds",
		"proxy denied.apple.com:80 broken; proxy; denied; the proxy PROXY, rule no  clouds",
		"proxy fails.apple.com:443 broken; proxy; proxy-failed; the proxy PROXY",
		"proxy nohttp.apple.com:443 broken; proxy; proxy-failed; the proxy PROXY",
		"proxy endless.apple.com:443 broken; proxy; proxy-failed; the proxy PROXY",
	})

	d.Proxy = "127.0.0.1:1"
	d.Rows = d.Rows[:1]
	compare(t, checks(d.Run(t.Context()))[1:2], []string{"proxy fine.apple.com:80 broken; proxy; proxy-down; the proxy 127.0.0.1:1"})
}

// What cannot be tried is said, and why.
func TestSkipped(t *testing.T) {
	retired := row("old.apple.com", 443)
	retired.Until = "2024-09"
	both := row("quic.apple.com", 443)
	both.Transports = []string{"tcp", "udp"}
	noPort := row("*.apple.com")
	other := row("vpp.itunes.apple.com", 443)
	other.Service = "app-store"
	d := newDoctor(t, nil, retired, both, noPort, row("17.0.0.0/8", 443), row("*.unknown.example", 443), row("*.itunes.apple.com", 443, 8080), row("*.known.example", 443, 443),
		row("a.known.example", 443), other)
	d.Services = []string{"icloud"}
	r := d.Run(t.Context())
	compare(t, checks(r), []string{
		"direct old.apple.com:443 skipped; " + noteRetired,
		"direct quic.apple.com:443 ok",
		"direct quic.apple.com:443 skipped; " + noteUDP,
		"direct 17.0.0.0/8:443 skipped; " + noteWildcard,
		"direct *.unknown.example:443 skipped; " + noteWildcard,
		"direct *.itunes.apple.com:443 ok",
		"direct *.itunes.apple.com:8080 skipped; " + noteWildcard,
		"direct *.known.example:443 ok",
		"direct a.known.example:443 ok",
	})
	tried := map[string]string{}
	for _, c := range r.Services[0].Checks {
		if c.Tried != "" {
			tried[c.Host] = c.Tried
		}
	}
	if want := (map[string]string{"*.itunes.apple.com": "init.itunes.apple.com", "*.known.example": "a.known.example"}); !maps.Equal(tried, want) {
		t.Errorf("tried %v, want %v", tried, want)
	}
}

// The known members are below wildcards that the catalogue has, at ports that it
// has.
func TestMembers(t *testing.T) {
	for host, list := range members {
		for _, m := range list {
			if !strings.HasSuffix(m.name, host[1:]) {
				t.Errorf("%s is not below %s", m.name, host)
			}
			for _, port := range m.ports {
				if !slices.ContainsFunc(catalog.Embedded(), func(r catalog.Row) bool { return r.Host == host && r.HasPort(port) }) {
					t.Errorf("the catalogue has no %s at port %d", host, port)
				}
			}
		}
	}
}

// When time is over, the rest is said not to have been tried, and what was
// being tried is not blamed.
func TestDeadline(t *testing.T) {
	var rows []catalog.Row
	faults := map[string]doctortest.Fault{}
	for i := range 2 * parallel {
		host := fmt.Sprintf("host%d.apple.com", i)
		rows = append(rows, row(host, 443))
		faults[host] = doctortest.Silent
	}
	d := newDoctor(t, faults, rows...)
	ctx, cancel := context.WithCancel(t.Context())
	d.Progress = func(done, _ int) {
		if done == 1 {
			cancel()
		}
	}
	d.Timeout = 2 * time.Second
	r := d.Run(ctx)
	n := r.Services[0].Count(Direct)
	if r.Complete || n[OK] != 0 || n[Broken]+n[Skipped] != len(rows) || n[Skipped] < parallel {
		t.Errorf("complete %v, %v", r.Complete, n)
	}
	for _, c := range r.Services[0].Checks {
		if c.State == Skipped && c.Note != noteLate {
			t.Errorf("%+v", c)
		}
	}
}

// All rows fit into the time, however many of them do not answer.
func TestShare(t *testing.T) {
	for _, n := range []int{0, 1, parallel, 300, 5000} {
		rounds := time.Duration(max(1, (n+parallel-1)/parallel))
		if each := share(DefaultTimeout, n); each <= 0 || each > patience || each*rounds >= DefaultTimeout {
			t.Errorf("%d hosts: %s each", n, each)
		}
	}
}
