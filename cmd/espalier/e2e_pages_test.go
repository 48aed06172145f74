package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"espalier/policy/auth"
	"espalier/proxy/accesslog"
)

// browser is a Chromium that notes what a page should not do.
type browser struct {
	t     *testing.T
	ctx   context.Context
	base  string // of the console
	begun bool   // the first step was done

	mu     sync.Mutex
	faults []string
}

func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	need(t, "chromium")
	alloc, stop := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-gpu", true), chromedp.Env("HOME="+t.TempDir()))...)
	t.Cleanup(stop)
	ctx, stop := chromedp.NewContext(alloc)
	t.Cleanup(stop)
	b := &browser{t: t, ctx: ctx, base: base}
	var target *chromedp.Target
	b.do(func(_ context.Context, t *chromedp.Target) (chromedp.Void, error) {
		target = t
		return chromedp.Void{}, nil
	})
	note(b, target, runtime.ConsoleAPICalled, func(e runtime.EventConsoleAPICalled) string {
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			return fmt.Sprintf("console: %s", e.Args[0].Value)
		}
		return ""
	})
	note(b, target, runtime.ExceptionThrown, func(e runtime.EventExceptionThrown) string {
		return "exception: " + e.ExceptionDetails.Text
	})
	note(b, target, log.EntryAdded, func(e log.EventEntryAdded) string {
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			return "log: " + e.Entry.Text + " " + e.Entry.URL
		}
		return ""
	})
	note(b, target, network.RequestWillBeSent, func(e network.EventRequestWillBeSent) string {
		if u := e.Request.URL; !strings.HasPrefix(u, b.base+"/") && !strings.HasPrefix(u, "data:") {
			return "a request leaves the console: " + u
		}
		return ""
	})
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	return b
}

// note notes what fault makes of events.
func note[E any](b *browser, s cdp.Session, event cdp.Event[E], fault func(E) string) {
	events := cdp.Events(b.ctx, s, event)
	go func() {
		for e, err := range events {
			if err != nil {
				return
			}
			if text := fault(e); text != "" {
				b.mu.Lock()
				b.faults = append(b.faults, text)
				b.mu.Unlock()
			}
		}
	}()
}

// call sends a command of the protocol.
func call[P, R any](b *browser, c cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, c, params); err != nil {
		b.t.Fatal(err)
	}
}

// noFaults reports what was noted since the last time.
func (b *browser) noFaults(where string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		b.t.Errorf("%s: %s", where, f)
	}
	b.faults = nil
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if b.ctx.Err() == nil && !b.begun { // a limit here would stop the whole browser
		ctx, b.begun = b.ctx, true
	}
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// js evaluates an expression.
func js[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression[:min(len(expression), 80)], err)
	}
	return out
}

func size(width int64) chromedp.Action[chromedp.Void] { return chromedp.EmulateViewport(width, 900) }

// until waits for an expression to hold, in a page that has loaded: while one is
// taken for another, what is found in it may be gone before it is clicked on.
func (b *browser) until(expression string) {
	b.t.Helper()
	// A page that is left meanwhile answers nothing.
	holds := func() bool {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](`document.readyState === "complete" && !!(`+expression+")"))
		return err == nil && ok
	}
	for end := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("waited in vain for %s\n%s", expression, js[string](b, "document.body.innerText"))
		}
	}
}

// signIn signs in as a person does.
func (b *browser) signIn(name, password string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base+"/signin"), chromedp.SendKeys(chromedp.CSS(`input[name=name]`), name),
		chromedp.SendKeys(chromedp.CSS(`input[name=password]`), password), chromedp.Submit(chromedp.CSS(`input[name=password]`)), chromedp.WaitVisible(chromedp.CSS(`.heading`)))
}

// axe returns what axe-core finds that is serious.
func (b *browser) axe() string {
	b.t.Helper()
	type finding struct {
		ID     string   `json:"id"`
		Impact string   `json:"impact"`
		Help   string   `json:"help"`
		Nodes  []string `json:"nodes"`
	}
	found := js[[]finding](b, `axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations
		.filter(v => v.impact === "serious" || v.impact === "critical")
		.map(v => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 5).map(n => n.html + " " + n.failureSummary)})))`)
	var text strings.Builder
	for _, f := range found {
		fmt.Fprintf(&text, "%s (%s): %s\n\t%s\n", f.ID, f.Impact, f.Help, strings.Join(f.Nodes, "\n\t"))
	}
	return text.String()
}

const consolePassword = "correct horse battery"

// consoleWith starts the program with a day of traffic in its access log, and
// returns where its console is.
func consoleWith(t *testing.T, config string) (*process, string) {
	t.Helper()
	p := prepare(t, config)
	if err := os.MkdirAll(p.data, 0o700); err != nil {
		t.Fatal(err)
	}
	line, err := auth.Line("ann", consolePassword, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.data, "users"), []byte(line+":admin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.data, "access.log"), dayOfTraffic(time.Now()), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.await("the records in the store", func() bool {
		return p.metric("espalier_store_lag_bytes") == 0 && p.metric(`espalier_store_records_total{result="stored"}`) > 0
	})
	return p, "http://" + p.admin
}

// dayOfTraffic is an access log of the 24 hours before a time.
func dayOfTraffic(now time.Time) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	kinds := []struct {
		host, service, action, rule, failure string
		port, status, weight                 int
		bytes                                float64
	}{
		{"swcdn.apple.com", "software-update", "tunnel", "apple", "", 443, 200, 6, 40e6},
		{"iosapps.itunes.apple.com", "app-store", "tunnel", "apple", "", 443, 200, 9, 12e6},
		{"1-courier.push.apple.com", "push", "tunnel", "apple", "", 5223, 200, 16, 40e3},
		{"p42-content.icloud.com", "icloud", "tunnel", "apple", "", 443, 200, 14, 4e6},
		{"gs-loc.apple.com", "apple-other", "tunnel", "apple", "", 443, 200, 6, 9e3},
		{"ocsp2.apple.com", "certificates", "forward", "apple", "", 80, 200, 5, 3e3},
		{"mdmenrollment.apple.com", "device-management", "tunnel", "apple", "", 443, 200, 3, 60e3},
		{"lessons.school.example", "other", "tunnel", "default", "", 443, 200, 16, 2e6},
		{"ads.tracker.example", "other", "deny", "no advertisements", "", 443, 403, 8, 0},
		{"video.example.net", "other", "inspect", "look into video", "", 443, 200, 4, 9e6},
		{"broken.example.org", "other", "error", "default", "dial tcp 192.0.2.80:443: connection refused", 443, 502, 2, 0},
		{"swdist.apple.com", "software-update", "error", "apple", "look up swdist.apple.com: i/o timeout", 443, 504, 1, 0},
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	var out []byte
	const n = 6000
	for i := range n {
		pick := random.IntN(total)
		k := kinds[0]
		for _, k = range kinds {
			if pick -= k.weight; pick < 0 {
				break
			}
		}
		at := now.Add(-24*time.Hour + time.Duration(float64(i)/n*float64(24*time.Hour)))
		if hour := at.Hour(); (hour < 6 || hour > 20) && random.IntN(4) > 0 { // at night it is quiet
			continue
		}
		text, err := json.Marshal(map[string]any{
			"time": at.UTC().Format("2006-01-02T15:04:05.000Z"), "id": (accesslog.ID(1_700_000_000_000_000_000) + accesslog.ID(i)).String(), "node": "proxy-1",
			"client": fmt.Sprintf("10.20.%d.%d", random.IntN(3), 10+random.IntN(40)), "user": "", "method": "CONNECT", "host": k.host, "port": k.port, "url": "",
			"service": k.service, "action": k.action, "rule": k.rule, "status": k.status,
			"up": int(k.bytes * random.Float64() / 20), "down": int(k.bytes * random.ExpFloat64()),
			"duration_ms": 20 + random.IntN(90_000), "connect_ms": 4 + random.IntN(60), "upstream": "192.0.2.80:443", "agent": "iPadOS/27.1", "error": k.failure,
		})
		if err != nil {
			panic(err)
		}
		out = append(append(out, text...), '\n')
	}
	return out
}

// useProxy sends something through the proxy, and leaves a tunnel open.
func useProxy(t *testing.T, p *process) {
	t.Helper()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 300_000)) }))
	t.Cleanup(origin.Close)
	_, port, _ := net.SplitHostPort(origin.Listener.Addr().String())
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: p.proxy}), DisableKeepAlives: true}}
	for _, u := range []string{"http://lessons.school.example:" + port + "/", "http://gs.apple.com:" + port + "/", "http://x.tracker.example/"} {
		resp, err := client.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	conn, err := net.Dial("tcp", p.proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "CONNECT gs.apple.com:%s HTTP/1.1\r\nHost: gs.apple.com:%s\r\n\r\n", port, port)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, " 200 ") {
		t.Fatal(line, err)
	}
}

const pagesConfig = `rules:
  - {name: no advertisements, when: {hosts: ["*.tracker.example"]}, then: deny}
  - {name: look into video, when: {hosts: [video.example.net], hours: ["08:00-16:00"]}, then: tunnel}
egress: {dns: ["127.0.0.1:1"], allow: [127.0.0.0/8], hosts: {gs.apple.com: 127.0.0.1, lessons.school.example: 127.0.0.1}}
pac:
  probe: false
  proxies: ["proxy.school.example:3128"]
  sites: {north: {clients: [10.20.0.0/16], proxies: ["north.school.example:3128"]}}
`

// Every page, in both languages, light and dark, wide and narrow, in a real
// browser: without an error, a request elsewhere, or what a reader with a screen
// reader, a keyboard or weak eyes stumbles over. ESPALIER_SCREENSHOTS names a
// directory for pictures of them.
func TestPagesInBrowser(t *testing.T) {
	t.Parallel()
	p, base := consoleWith(t, pagesConfig)
	if _, stderr, code := p.run("inspect", "exceptions", "accept", "bank.example"); code != 0 {
		t.Fatal(stderr)
	}
	reachable := strings.Replace(p.whole(pagesConfig), "web: {", `web: {public_url: "http://pac.school.example:8080", `, 1)
	if err := os.WriteFile(p.config, []byte(reachable), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := p.run("reload"); code != 0 {
		t.Fatal(stderr)
	}
	useProxy(t, p)
	b := newBrowser(t, base)
	b.signIn("ann", consolePassword)
	b.do(chromedp.Navigate(base+"/doctor"), chromedp.Click(chromedp.CSS(".buttons button")))
	b.until(`document.querySelectorAll("#report .checks li").length > 100 && !document.querySelector("progress")`)
	axe, err := os.ReadFile("../../web/console/testdata/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	var list accesslog.Record
	var page struct{ Records []json.RawMessage }
	if err := json.Unmarshal([]byte(p.console("/api/v1/logs?error=*&limit=1")), &page); err != nil || len(page.Records) != 1 {
		t.Fatal(err)
	}
	if err := list.UnmarshalJSON(page.Records[0]); err != nil {
		t.Fatal(err)
	}
	pages := []struct{ name, path string }{
		{"overview", "/"}, {"services", "/services?since=24h"}, {"service", "/services/software-update"},
		{"logs", "/logs"}, {"logs-filtered", "/logs?action=error&since=24h&status=5xx"}, {"logs-wrong", "/logs?status=x"},
		{"record", "/logs/" + list.ID.String()}, {"policy", "/policy?url=https%3A%2F%2Fgs.apple.com%2F&client=10.20.1.2"},
		{"pac", "/pac?urls=https%3A%2F%2Fgs.apple.com%2F+https%3A%2F%2Fexample.com%2F"}, {"inspection", "/inspection"}, {"settings", "/settings"}, {"doctor", "/doctor"},
		{"nothing", "/services/nothing"},
	}
	pictures := os.Getenv("ESPALIER_SCREENSHOTS")
	for _, look := range []struct {
		lang, theme string
		width       int64
		axe         bool
	}{
		{"en", "light", 1280, true}, {"sv", "dark", 1280, true}, {"sv", "light", 390, true}, {"en", "dark", 390, true},
		{"sv", "light", 1280, false}, {"en", "dark", 1280, false}, {"en", "light", 390, false}, {"sv", "dark", 390, false},
	} {
		b.do(size(look.width))
		call(b, network.SetCookie, network.SetCookieParams{Name: "espalier-lang", Value: look.lang, URL: base})
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.theme}}})
		for _, page := range pages {
			name := fmt.Sprintf("%s-%s-%s-%d", page.name, look.lang, look.theme, look.width)
			if page.name == "nothing" { // 404 is an error to the browser's log, and rightly so
				b.noFaults(name)
			}
			b.do(chromedp.Navigate(base+page.path), chromedp.WaitVisible(chromedp.CSS("main h1")))
			if page.name == "nothing" {
				b.mu.Lock()
				b.faults = nil
				b.mu.Unlock()
			}
			if got := js[string](b, "document.documentElement.lang"); got != look.lang {
				t.Errorf("%s: language %q", name, got)
			}
			if page.name == "pac" { // with all that the form for profiles can show
				js[bool](b, `(() => { const f = document.querySelector("form.profile"); f.closest("details").open = true; f.kind.value = "wifi"; return true; })()`)
			}
			if wide := js[int64](b, "document.documentElement.scrollWidth"); wide > look.width {
				t.Errorf("%s: is %d wide", name, wide)
			}
			if charts := js[bool](b, `[...document.querySelectorAll("figure.chart .plot")].every(p => p.querySelector("canvas"))`); !charts {
				t.Errorf("%s: a chart is not drawn", name)
			}
			if look.axe {
				js[bool](b, string(axe)+"; true")
				if found := b.axe(); found != "" {
					t.Errorf("%s: axe-core finds\n%s", name, found)
				}
			}
			if pictures != "" {
				png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(pictures, name+".png"), png, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b.noFaults(name)
		}
	}
	// It would have found something.
	js[bool](b, `document.querySelector("h1").style.color = "color-mix(in srgb, var(--page), var(--text) 20%)"; true`)
	js[bool](b, string(axe)+"; true")
	if found := b.axe(); !strings.Contains(found, "color-contrast") {
		t.Errorf("axe-core finds nothing wrong with pale text: %s", found)
	}
}

// The page at the public port's / has the device's language and colours, fits a
// phone, needs nothing from elsewhere, and leads to a profile that is one.
func TestWelcomePageInBrowser(t *testing.T) {
	t.Parallel()
	const config = `proxy: {listen: ["127.0.0.1:0"], contact: "IT help desk, room 12"}`
	p := prepare(t, config)
	reachable := strings.Replace(p.whole(config), "web: {", `web: {public_url: "http://pac.school.example:8080", `, 1)
	if err := os.WriteFile(p.config, []byte(reachable), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := p.run("ca", "init"); code != 0 {
		t.Fatal(stderr)
	}
	p.start()
	axe, err := os.ReadFile("../../web/console/testdata/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + p.public
	b := newBrowser(t, base)
	pictures := os.Getenv("ESPALIER_SCREENSHOTS")
	for _, look := range []struct {
		lang, theme, title string
		width              int64
	}{
		{"en", "light", "Web proxy", 1280}, {"sv", "dark", "Webbproxy", 1280}, {"en", "dark", "Web proxy", 390}, {"sv", "light", "Webbproxy", 390},
	} {
		name := fmt.Sprintf("welcome-%s-%s-%d", look.lang, look.theme, look.width)
		b.do(size(look.width))
		call(b, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": look.lang}})
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.theme}}})
		b.do(chromedp.Navigate(base+"/"), chromedp.WaitVisible(chromedp.CSS("main h1")))
		if got := js[string](b, `document.documentElement.lang + " " + document.querySelector("h1").textContent`); got != look.lang+" "+look.title {
			t.Errorf("%s: %q", name, got)
		}
		text := js[string](b, "document.body.innerText")
		for _, want := range []string{"http://pac.school.example:8080/proxy.pac", "Espalier Root CA", "IT help desk, room 12"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in %s", name, want, text)
			}
		}
		if wide := js[int64](b, "document.documentElement.scrollWidth"); wide > look.width {
			t.Errorf("%s: is %d wide", name, wide)
		}
		b.noFaults(name) // axe-core is none of the page's
		js[bool](b, string(axe)+"; true")
		if found := b.axe(); found != "" {
			t.Errorf("%s: axe-core finds\n%s", name, found)
		}
		if pictures != "" {
			png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(pictures, name+".png"), png, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	resp, err := http.Get(base + js[string](b, `document.querySelector("a.button").getAttribute("href")`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "application/x-apple-aspen-config" {
		t.Errorf("the profile is %s, %s", resp.Status, got)
	}
}

// What the console does beside being read: filter while typing, follow, decide,
// change its colours and language; and what is left of it without scripts.
func TestConsoleInBrowser(t *testing.T) {
	t.Parallel()
	p, base := consoleWith(t, pagesConfig)
	b := newBrowser(t, base)
	b.do(size(1280))
	b.signIn("ann", consolePassword)

	// What flows shows without a click.
	b.until(`!document.querySelector(".card.live").hidden`)

	// Charts have the server's times, as the tables beside them, wherever the reader is.
	call(b, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Pacific/Kiritimati"})
	b.do(chromedp.Navigate(base + "/services?since=24h"))
	b.until(`(() => {
		const over = document.querySelector("figure.chart .u-over");
		if (!over) return false;
		const box = over.getBoundingClientRect();
		over.dispatchEvent(new MouseEvent("mousemove", {clientX: box.right - 1, clientY: box.top + 9, bubbles: true}));
		return document.querySelector(".legend .when").textContent !== "total";
	})()`)
	if at, last := js[string](b, `document.querySelector(".legend .when").textContent`), js[string](b, `[...document.querySelectorAll("figure.chart tbody time")].pop().textContent`); !strings.HasPrefix(last, at) || at == "" {
		t.Errorf("the chart ends at %s, its table at %s", at, last)
	}
	call(b, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{})
	b.do(chromedp.Navigate(base + "/"))
	b.until(`!document.querySelector(".card.live").hidden`)

	// The keyboard comes to the content past the navigation.
	b.do(chromedp.KeyEvent("\t"))
	if got := js[string](b, `document.activeElement.className`); got != "skip" {
		t.Errorf("the first focus is on %q", got)
	}

	// The filter acts while it is typed, and its state is the URL's.
	b.do(chromedp.Navigate(base+"/logs"), chromedp.SendKeys(chromedp.CSS(`input[name=host]`), "tracker.example"))
	b.until(`location.search === "?host=tracker.example" && [...document.querySelectorAll(".records .to")].every(e => e.textContent.includes("ads.tracker.example"))`)
	if n := js[int](b, `document.querySelectorAll(".records tbody tr").length`); n != 100 {
		t.Errorf("%d rows", n)
	}
	if got := js[int](b, `document.querySelectorAll("#hosts option").length`); got < 5 {
		t.Errorf("%d hosts to complete with", got)
	}
	link := js[string](b, `document.querySelector(".tools a[download]").href`)
	if csv := p.console(strings.TrimPrefix(link, base)); strings.Count(csv, "\n") < 100 || strings.Contains(csv, "icloud") {
		t.Errorf("the export has %d lines", strings.Count(csv, "\n"))
	}

	// New records come by themselves once that is asked for.
	b.do(chromedp.Click(chromedp.CSS("button.follow"), chromedp.NodeVisible))
	proxied := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: p.proxy}), DisableKeepAlives: true}}
	resp, err := proxied.Get("http://new.tracker.example/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	b.until(`document.querySelector(".records tbody tr .to").textContent.includes("new.tracker.example")`)
	if got := js[string](b, `document.querySelector("button.follow").getAttribute("aria-pressed")`); got != "true" {
		t.Errorf("follow is %s", got)
	}

	// A record says why.
	b.do(chromedp.Click(chromedp.CSS(".records tbody tr a")), chromedp.WaitVisible(chromedp.CSS("#why")))
	if text := js[string](b, "document.querySelector('main').innerText"); !strings.Contains(text, "no advertisements") || !strings.Contains(text, "The first rule of yours") {
		t.Error(text)
	}

	// An administrator decides about a host.
	b.do(chromedp.Navigate(base+"/inspection"), chromedp.SendKeys(chromedp.CSS(`.bare input[name=host]`), "bank.example"), chromedp.Click(chromedp.CSS(`.bare button`)), chromedp.WaitVisible(chromedp.CSS("table")))
	b.until(`document.querySelector("table").innerText.includes("accepted")`)
	b.do(chromedp.Click(chromedp.CSS(`button[formaction="/inspection/forget"]`)))
	b.until(`!document.querySelector("table")`)

	// What another configuration changes for devices can be looked at.
	p.write(strings.Replace(pagesConfig, "proxy.school.example:3128", "other.school.example:3128", 1))
	if _, stderr, code := p.run("reload"); code != 0 {
		t.Fatal(stderr)
	}
	b.do(chromedp.Navigate(base + "/pac"))
	js[bool](b, `document.querySelector("select[name=old]").selectedIndex = 1; true`)
	b.do(chromedp.Click(chromedp.CSS(".filter button")))
	b.until(`/proxy\.school\.example:3128[^]*other\.school\.example:3128[^]*URLs get another answer/.test(document.getElementById("changes").innerText)`)

	// The colours and the language are chosen, and stay.
	b.do(chromedp.Click(chromedp.CSS(`button[value=dark]`)))
	b.until(`document.documentElement.dataset.theme === "dark"`)
	b.do(chromedp.Click(chromedp.CSS(`button[value=sv]`)))
	b.until(`document.documentElement.lang === "sv" && document.querySelector("h1").textContent === "PAC och profiler"`)
	b.noFaults("with scripts")

	// All can be read without scripts.
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	for path, want := range map[string]string{
		"/": "Trafik per tjänst", "/logs?host=tracker.example": "ads.tracker.example", "/services/push": "Rader i katalogen",
		"/policy?url=ads.tracker.example": "no advertisements", "/pac?urls=gs.apple.com": "PROXY other.school.example:3128",
	} {
		b.do(chromedp.Navigate(base + path))
		text, err := chromedp.Run(b.ctx, chromedp.Text(chromedp.CSS("main")))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, want) {
			t.Errorf("%s without scripts has no %q:\n%s", path, want, text)
		}
	}
	b.noFaults("without scripts")
}
