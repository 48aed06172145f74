package pac

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
)

// chain is what people write by hand: a line for each row of the catalogue, the
// routes those of standard. Browsers bring shExpMatch along, some written like
// this one.
func chain(rows []catalog.Row, proxy string) []byte {
	var b strings.Builder
	b.WriteString(`function shExpMatch(s, pattern) {
  pattern = pattern.replace(/\./g, "\\.").replace(/\*/g, ".*").replace(/\?/g, ".");
  return new RegExp("^" + pattern + "$").test(s);
}
function FindProxyForURL(url, host) {
  var port = /^\w+:\/\/[^\/]*:(\d+)(\/|$)/.exec(url);
  port = port ? port[1] : url.substring(0, 5) == "http:" ? 80 : 443;
  host = host.toLowerCase().replace(/\.$/, "");
`)
	for i := range rows {
		var ports []string
		for _, p := range rows[i].Ports {
			ports = append(ports, fmt.Sprintf("port == %d", p))
		}
		condition := ""
		if len(ports) > 0 {
			condition = " && (" + strings.Join(ports, " || ") + ")"
		}
		fmt.Fprintf(&b, "  if (shExpMatch(host, %q)%s) return \"PROXY %s; DIRECT\";\n", shPattern(rows[i].Host), condition, proxy)
	}
	fmt.Fprintf(&b, "  return \"PROXY %s\";\n}\n", proxy)
	return []byte(b.String())
}

// shPattern is host, or a pattern of the text of addresses; the blocks of the
// catalogue end between groups.
func shPattern(host string) string {
	p, err := netip.ParsePrefix(host)
	if err != nil {
		return host
	}
	if p.Addr().Is4() {
		return strings.Join(strings.Split(p.Addr().String(), ".")[:p.Bits()/8], ".") + ".*"
	}
	return strings.TrimSuffix(p.Addr().String(), ":") + ":*"
}

// benchmarked are the two scripts and what they are asked.
func benchmarked(t testing.TB) (scripts map[string][]byte, calls [][2]string) {
	t.Helper()
	const proxy = "192.0.2.1:3128"
	p := compile(t, Config{Routes: standard, Local: "proxy"}, policy.Apple{Wide: true})
	scripts = map[string][]byte{"espalier": script(t, p, "", proxy).Body, "shexpmatch": chain(p.policy.Apple().Rows(), proxy)}
	urls := Samples(p.policy.Apple().Rows(), nil)
	for i := range 50 { // as many again that are not Apple's
		urls = append(urls, fmt.Sprintf("https://www%d.example.org/", i), fmt.Sprintf("http://cdn%d.example.net/", i))
	}
	for _, s := range urls {
		url, host, _, err := DeviceURL(s)
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, [2]string{url, host})
	}
	return scripts, calls
}

// The scripts that are compared must say the same.
func TestChainAgrees(t *testing.T) {
	scripts, calls := benchmarked(t)
	ours, err := NewEvaluator(scripts["espalier"])
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := newEvaluator(scripts["shexpmatch"], time.Minute, nil) // which it needs on a busy machine
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		a, err := ours.FindProxy(c[0], c[1])
		b, err2 := theirs.FindProxy(c[0], c[1])
		if a != b || errors.Join(err, err2) != nil {
			t.Errorf("for %s the script says %q, the chain %q; %v, %v", c[0], a, b, err, err2)
		}
	}
}

// BenchmarkEval is the cost of one URL.
func BenchmarkEval(b *testing.B) {
	scripts, calls := benchmarked(b)
	for _, name := range []string{"espalier", "shexpmatch"} {
		b.Run(name+"/goja", func(b *testing.B) {
			js, err := NewEvaluator(scripts[name])
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(len(scripts[name])), "script-bytes")
			for i := 0; b.Loop(); i++ {
				c := calls[i%len(calls)]
				if _, err := js.FindProxy(c[0], c[1]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/jsc", func(b *testing.B) { benchmarkJSC(b, scripts[name], calls) })
	}
}

// benchmarkJSC lets JavaScriptCore, the engine of Apple's devices, take the time.
func benchmarkJSC(b *testing.B, script []byte, calls [][2]string) {
	jsc, err := exec.LookPath("jsc")
	if err != nil {
		b.Skip("jsc is not installed (Debian: libjavascriptcoregtk-4.0-bin)")
	}
	list, err := json.Marshal(calls)
	if err != nil {
		b.Fatal(err)
	}
	program := string(script) + `
(function () {
  var calls = ` + string(list) + `, n = ` + strconv.Itoa(b.N) + `, i, c, start = preciseTime();
  for (i = 0; i < n; i++) { c = calls[i % calls.length]; FindProxyForURL(c[0], c[1]); }
  print((preciseTime() - start) * 1e9 / n);
})();`
	file := filepath.Join(b.TempDir(), "bench.js")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		b.Fatal(err)
	}
	out, err := exec.CommandContext(b.Context(), jsc, file).Output()
	if err != nil {
		b.Fatalf("jsc: %v", err)
	}
	ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		b.Fatalf("jsc: %s", out)
	}
	b.ReportMetric(ns, "ns/op")
}
