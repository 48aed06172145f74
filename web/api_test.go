package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"
	"go.uber.org/zap"

	"espalier/pac"
	"espalier/policy"
	"espalier/policy/auth"
	"espalier/policy/catalog"
	"espalier/policy/lists"
	"espalier/proxy/accesslog"
	"espalier/proxy/egress"
	"espalier/proxy/traffic"
	"espalier/web/api"
	"espalier/web/explain"
	"espalier/web/server"
	"espalier/web/signin"
)

var document = sync.OnceValues(func() (*openapi3.T, error) {
	return openapi3.NewLoader().LoadFromData(api.OpenAPI())
})

func loadDocument(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := document()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// The document is one, and has what there is, no more and no less.
func TestOpenAPI(t *testing.T) {
	doc := loadDocument(t)
	if err := doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Fatal(err)
	}
	if !doc.IsOpenAPI31OrLater() {
		t.Error(doc.OpenAPI)
	}
	var have, want []string
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			have = append(have, method+" "+path)
			if op.OperationID == "" || op.Summary == "" || len(op.Tags) != 1 || op.Responses.Default() == nil {
				t.Errorf("%s %s: incomplete", method, path)
			}
		}
	}
	for _, e := range testControl().Endpoints() {
		want = append(want, e.Method+" "+e.Path)
		op := doc.Paths.Value(e.Path).GetOperation(e.Method)
		if op != nil && (e.Role == signin.Admin) != strings.Contains(op.Description, "Takes the role admin.") {
			t.Errorf("%s %s: the role is %s", e.Method, e.Path, e.Role)
		}
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("openapi.yaml has\n%s\nthere is\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// An apiTest is an admin listener with a store, whose answers are held against
// the document.
type apiTest struct {
	*testing.T
	control api.Control
	srv     *httptest.Server
	data    string
}

func newAPI(t *testing.T, change func(*api.Control)) *apiTest {
	t.Helper()
	a := &apiTest{T: t, data: t.TempDir()}
	a.control = testControl()
	x := testExplainer(t)
	store, err := accesslog.OpenStore(accesslog.StoreConfig{Path: filepath.Join(a.data, "s.db")}, a.data, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	a.control.Store = store
	a.control.Explainer = func() *explain.Explainer { return x }
	a.control.Settings = func() []api.Setting {
		return []api.Setting{{Key: "egress.parent", Value: "http://u:xxxxx@parent.example:3128", Origin: "espalier.yaml:3"}}
	}
	if change != nil {
		change(&a.control)
	}
	a.srv = serveAdmin(t, a.control)
	t.Cleanup(func() {
		a.srv.Close()
		store.Close()
	})
	return a
}

func testExplainer(t *testing.T) *explain.Explainer {
	t.Helper()
	rules := []policy.Rule{{Name: "no-games", When: policy.When{Hosts: []string{"games.example"}}, Then: "deny"}}
	pol, err := policy.New(policy.Config{Clients: []string{"10.0.0.0/8"}, Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	users, err := auth.Open(auth.Config{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := egress.New(egress.Config{ConnectTimeout: time.Second}, egress.Self{})
	if err != nil {
		t.Fatal(err)
	}
	routes := pac.Routes{Apple: []string{"proxy", "direct"}, AppleUnmarked: []string{"proxy", "direct"}, Internal: []string{"direct"}, Default: []string{"proxy"}}
	script, err := pac.Compile(pac.Config{Routes: routes, Proxies: []string{"proxy.example:3128"}, Sites: map[string]pac.Site{
		"north": {Clients: []string{"10.1.0.0/16"}, Proxies: []string{"north.example:3128"}},
	}}, pol)
	if err != nil {
		t.Fatal(err)
	}
	return &explain.Explainer{
		Policy: pol, Rules: rules, Auth: users, Dialer: dialer, PAC: script, Clients: []string{"10.0.0.0/8"},
		Lists: lists.New(t.TempDir(), zap.NewNop()).Prepare(nil),
	}
}

// add puts records into the store.
func (a *apiTest) add(records ...accesslog.Record) {
	a.Helper()
	var lines bytes.Buffer
	for i := range records {
		line, err := records[i].MarshalJSON()
		if err != nil {
			a.Fatal(err)
		}
		lines.Write(append(line, '\n'))
	}
	if got, err := a.control.Store.Import(a.Context(), &lines); err != nil || got.Stored != uint64(len(records)) {
		a.Fatalf("%+v, %v", got, err)
	}
}

// tokenDir is where the token that requests carry is kept.
func (a *apiTest) tokenDir() string { return a.srv.Client().Transport.(bearer).dir }

// ask sends a request, and holds it and the answer against the document where
// the request is a good one.
func (a *apiTest) ask(method, path string, form url.Values, status int, answer any) string {
	a.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, a.srv.URL+api.Prefix+path, body)
	if err != nil {
		a.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := a.srv.Client().Do(req)
	if err != nil {
		a.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.Fatal(err)
	}
	if resp.StatusCode != status {
		a.Errorf("%s %s: %s\n%s", method, path, resp.Status, text)
	}
	a.validate(req, form, resp, text)
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			a.Errorf("%s %s: %v\n%s", method, path, err, text)
		}
	}
	return string(text)
}

func (a *apiTest) validate(req *http.Request, form url.Values, resp *http.Response, body []byte) {
	a.Helper()
	router, err := legacy.NewRouter(loadDocument(a.T))
	if err != nil {
		a.Fatal(err)
	}
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = "", ""
	if form != nil {
		req.Body = io.NopCloser(strings.NewReader(form.Encode()))
	}
	route, params, err := router.FindRoute(req)
	if err != nil {
		if resp.StatusCode != 404 && resp.StatusCode != 405 {
			a.Errorf("%s %s: %v", req.Method, req.URL, err)
		}
		return
	}
	in := &openapi3filter.RequestValidationInput{
		Request: req, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if resp.StatusCode < 300 {
		if err := openapi3filter.ValidateRequest(req.Context(), in); err != nil {
			a.Errorf("%s %s was taken, against the document: %v", req.Method, req.URL, err)
		}
	}
	out := (&openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header, Options: in.Options}).SetBodyBytes(body)
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		a.Errorf("%s %s: %v\n%s", req.Method, req.URL, err, body)
	}
}

func init() {
	text := func(r io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		b, err := io.ReadAll(r)
		return string(b), err
	}
	for _, kind := range []string{"application/x-ndjson", "text/csv"} {
		openapi3filter.RegisterBodyDecoder(kind, text)
	}
}

func TestProcessAPI(t *testing.T) {
	reloaded, drained := 0, 0
	var reload error
	a := newAPI(t, func(c *api.Control) {
		c.Reload = func() error { reloaded++; return reload }
		c.Drain = func() { drained++ }
		c.RefreshLists = func(_ context.Context, name string) error {
			if name != "ads" {
				return fmt.Errorf("there is no list %q", name)
			}
			return nil
		}
	})
	a.ask("GET", "/status", nil, 200, &api.Status{})
	a.ask("GET", "/services", nil, 200, &api.Services{})
	a.ask("GET", "/lists", nil, 200, &api.Lists{})
	a.ask("GET", "/inspect/exceptions", nil, 200, &api.ExceptionList{})
	a.ask("GET", "/openapi.json", nil, 200, new(any))
	var in api.Settings
	a.ask("GET", "/config", nil, 200, &in)
	if len(in.Settings) != 1 || in.Settings[0].Key != "egress.parent" || in.File != "espalier.yaml" {
		t.Errorf("%+v", in)
	}
	a.ask("POST", "/reload", nil, 204, nil)
	reload = fmt.Errorf("espalier.yaml:1:1: a: bad\nespalier.yaml:2:1: b: worse")
	var p server.Problem
	a.ask("POST", "/reload", nil, 422, &p)
	if len(p.Problems) != 2 || reloaded != 2 {
		t.Errorf("%+v", p)
	}
	a.ask("POST", "/drain", nil, 202, nil)
	if drained != 1 {
		t.Errorf("drained %d times", drained)
	}
	a.ask("POST", "/lists/refresh?name=ads", nil, 204, nil)
	a.ask("POST", "/lists/refresh", nil, 502, &server.Problem{})
	a.ask("POST", "/inspect/exceptions/accept?host=app.example", nil, 204, nil)
	a.ask("POST", "/inspect/exceptions/forget?host=other.example", nil, 404, &server.Problem{})
	a.ask("GET", "/nothing", nil, 404, &server.Problem{})
	a.ask("GET", "/reload", nil, 405, &server.Problem{})
}

// testRecords are n records a second apart, the last one now.
func testRecords(n int) []accesslog.Record {
	now := time.Now().Truncate(time.Millisecond)
	list := make([]accesslog.Record, n)
	for i := range list {
		list[i] = accesslog.Record{
			Time: now.Add(time.Duration(i-n+1) * time.Second), ID: accesslog.NextID(),
			Client: netip.MustParseAddr("10.1.2.3"), Method: "CONNECT", Host: "gs.apple.com", Port: 443,
			Service: "device-setup", Action: policy.Tunnel, Rule: "apple", Status: 200, Up: 10, Down: 100,
		}
	}
	list[0].Host, list[0].Service, list[0].Action, list[0].Status, list[0].Rule = "=games.example", catalog.Other, policy.Deny, 403, "no-games"
	return list
}

func TestLogsAPI(t *testing.T) {
	a := newAPI(t, nil)
	records := testRecords(25)
	a.add(records...)
	var page api.LogPage
	a.ask("GET", "/logs", nil, 200, &page)
	if len(page.Records) != 25 || page.Next.String() != "" || page.Records[0].ID != records[24].ID {
		t.Errorf("%d records, %q", len(page.Records), page.Next)
	}
	// Page by page there are all, each once.
	for _, order := range []string{"newest", "oldest"} {
		var ids []accesslog.ID
		for next := ""; ; {
			a.ask("GET", "/logs?limit=10&order="+order+"&cursor="+next, nil, 200, &page)
			for _, r := range page.Records {
				ids = append(ids, r.ID)
			}
			if next = page.Next.String(); next == "" {
				break
			}
		}
		if order == "newest" {
			slices.Reverse(ids)
		}
		if len(ids) != 25 || !slices.IsSorted(ids) {
			t.Errorf("%s: %v", order, ids)
		}
	}
	for q, want := range map[string]int{
		"since=1h": 25, "since=1s&until=now": 1, "client=10.1.0.0/16": 25, "client=10.2.0.1": 0, "host=apple.com": 24, "host=*.apple.com": 24,
		"service=other": 1, "action=deny": 1, "rule=no-games": 1, "status=4xx": 1, "status=200": 24, "min_bytes=111": 0, "min_duration=1s": 0,
		"error=*": 0, "user=ann": 0, "action=deny&status=200": 0,
	} {
		a.ask("GET", "/logs?"+q, nil, 200, &page)
		if page.Records == nil || q != "since=1s&until=now" && len(page.Records) != want {
			t.Errorf("%s: %d records, want %d", q, len(page.Records), want)
		}
	}
	var rec accesslog.Record
	a.ask("GET", "/logs/"+records[3].ID.String(), nil, 200, &rec)
	if rec.ID != records[3].ID || rec.Host != "gs.apple.com" {
		t.Errorf("%+v", rec)
	}
	for path, want := range map[string]int{"/logs/0000000000000": 404, "/logs/x": 404, "/logs/%2e%2e": 404} {
		a.ask("GET", path, nil, want, &server.Problem{})
	}
	lines := strings.Split(strings.TrimSpace(a.ask("GET", "/logs?format=jsonl&order=oldest", nil, 200, nil)), "\n")
	if len(lines) != 25 || json.Unmarshal([]byte(lines[24]), &rec) != nil || rec.ID != records[24].ID {
		t.Errorf("%d lines: %s", len(lines), lines)
	}
	rows, err := csv.NewReader(strings.NewReader(a.ask("GET", "/logs?format=csv&action=deny", nil, 200, nil))).ReadAll()
	if err != nil || len(rows) != 2 || rows[0][6] != "host" || rows[1][6] != "'=games.example" {
		t.Errorf("%q, %v", rows, err)
	}

	var sums api.TrafficAnswer
	a.ask("GET", "/traffic?since=1h", nil, 200, &sums)
	var up, down, requests int64
	for _, r := range sums.Rows {
		up, down, requests = up+r.Up, down+r.Down, requests+r.Requests
	}
	if up != 250 || down != 2500 || requests != 25 || len(sums.Rows) != 2 {
		t.Errorf("%+v", sums)
	}
	a.ask("GET", "/traffic?since=2h&step=10m&by=action&service=device-setup", nil, 200, &sums)
	if sums.StepSeconds != 600 || len(sums.Rows) == 0 || sums.Rows[0].Name != "tunnel" {
		t.Errorf("%+v", sums)
	}
	a.ask("GET", "/traffic?by=host&limit=1", nil, 200, &sums)

	for _, bad := range []struct{ path, say string }{
		{"/logs?hots=a.example", `there is no parameter "hots"`},
		{"/logs?limit=0", "limit: "},
		{"/logs?limit=1001", "limit: "},
		{"/logs?order=up", "order: "},
		{"/logs?cursor=x", "cursor: "},
		{"/logs?format=xml", "format: "},
		{"/logs?format=csv&limit=5", "format: csv has no pages"},
		{"/logs?since=soon", "since: "},
		{"/logs?status=teapot", "status: "},
		{"/logs?since=now&until=1h", "until: "},
		{"/logs?host=%zz", "the query cannot be read"},
		{"/traffic?by=moon", "by: "},
		{"/traffic?step=1s", "step: "},
		{"/traffic?since=1000d&step=1m", "step: "},
		{"/traffic?step=-1h", "step: "},
		{"/events?tail=2", "tail: "},
		{"/events?nothing=2", `there is no parameter "nothing"`},
	} {
		var p server.Problem
		a.ask("GET", bad.path, nil, 400, &p)
		if !strings.HasPrefix(p.Detail, bad.say) && (len(p.Problems) != 1 || !strings.HasPrefix(p.Problems[0], bad.say)) {
			t.Errorf("%s: %+v", bad.path, p)
		}
	}
}

func TestLogsAPIWithoutStore(t *testing.T) {
	a := newAPI(t, func(c *api.Control) { c.Store = nil })
	for _, path := range []string{"/logs", "/logs/0000000000000", "/traffic", "/events?tail=1"} {
		a.ask("GET", path, nil, 404, &server.Problem{})
	}
}

func TestExplainAPI(t *testing.T) {
	a := newAPI(t, nil)
	for _, tt := range []struct{ url, client, action, rule, pac string }{
		{"https://gs.apple.com/", "", "tunnel", "apple", "PROXY proxy.example:3128; DIRECT"},
		{"games.example", "10.1.2.3", "deny", "no-games", "PROXY north.example:3128"},
		{"http://site.example/a?b=c", "", "forward", "default", "PROXY proxy.example:3128"},
		{"site.example:8443", "192.0.2.1", "deny", "clients", "PROXY proxy.example:3128"},
		{"127.0.0.1", "::ffff:10.1.2.3", "deny", "address-guard", "DIRECT"},
	} {
		q := url.Values{"url": {tt.url}, "client": {tt.client}, "user": {"ann"}, "group": {"staff", "it"}}
		var got, posted explain.Explanation
		a.ask("GET", "/explain?"+q.Encode(), nil, 200, &got)
		a.ask("POST", "/explain", q, 200, &posted)
		if got.Action != tt.action || got.Rule != tt.rule || got.PAC != tt.pac || len(got.Groups) != 2 || posted.Why != got.Why {
			t.Errorf("%s: %+v", tt.url, got)
		}
	}
	for path, say := range map[string]string{
		"/explain": "url: is missing", "/explain?url=ftp://a.example/": "url: only http", "/explain?url=a..b": "url: ",
		"/explain?url=a.example&client=x": "client: ", "/explain?url=a.example&group=staff": "group: needs user", "/explain?uri=a.example": "there is no parameter",
	} {
		var p server.Problem
		a.ask("GET", path, nil, 400, &p)
		if !strings.HasPrefix(p.Detail, say) {
			t.Errorf("%s: %+v", path, p)
		}
	}
}

func TestPACAPI(t *testing.T) {
	a := newAPI(t, nil)
	var script api.PACScript
	a.ask("GET", "/pac", nil, 200, &script)
	if script.Site != "" || !slices.Equal(script.Sites, []string{"north"}) || script.Bytes != len(script.Script) || !strings.Contains(script.Script, "proxy.example:3128") {
		t.Errorf("%+v", script)
	}
	for _, q := range []string{"site=north", "client=10.1.2.3"} {
		a.ask("GET", "/pac?"+q, nil, 200, &script)
		if script.Site != "north" || !slices.Equal(script.Proxies, []string{"north.example:3128"}) {
			t.Errorf("%s: %+v", q, script)
		}
	}
	var answers api.PACAnswers
	a.ask("GET", "/pac/eval?url=https://gs.apple.com/&url=site.example&client=10.1.2.3", nil, 200, &answers)
	if answers.Site != "north" || len(answers.Answers) != 2 || answers.Answers[0].Answer != "PROXY north.example:3128; DIRECT" || answers.Answers[1].Host != "site.example" {
		t.Errorf("%+v", answers)
	}
	a.ask("GET", "/pac?site=south", nil, 404, &server.Problem{})
	a.ask("GET", "/pac?client=x", nil, 400, &server.Problem{})
	a.ask("GET", "/pac?script=x", nil, 400, &server.Problem{})
	a.ask("GET", "/pac/eval", nil, 400, &server.Problem{})
	a.ask("GET", "/pac/eval?"+strings.Repeat("url=a.example&", api.MaxURLs+1), nil, 400, &server.Problem{})
	a.ask("GET", "/pac/eval?url=a..b", nil, 400, &server.Problem{})
}

// watch opens an event stream, and returns what calls its events.
func (a *apiTest) watch(ctx context.Context, path string) (*http.Response, func() (name, data string)) {
	a.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", a.srv.URL+api.Prefix+path, nil)
	if err != nil {
		a.Fatal(err)
	}
	resp, err := a.srv.Client().Do(req)
	if err != nil {
		a.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	return resp, func() (name, data string) {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return "end", err.Error()
			}
			if v, ok := strings.CutPrefix(line, "event: "); ok {
				name = strings.TrimSpace(v)
			}
			if v, ok := strings.CutPrefix(line, "data: "); ok {
				return name, v
			}
		}
	}
}

func TestEvents(t *testing.T) {
	counters := traffic.New()
	a := newAPI(t, func(c *api.Control) { c.Services = counters.Snapshot })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a.add(testRecords(3)...) // from before are not told of
	resp, next := a.watch(ctx, "/events?tail=1&action=deny")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	push := counters.Service(catalog.Push)
	push.AddDown(42)
	push.TunnelOpened()
	push.Request(policy.Tunnel)
	name, data := next()
	var got api.Throughput
	if err := json.Unmarshal([]byte(data), &got); err != nil || name != "traffic" || got.Seconds <= 0 || got.Tunnels != 1 || len(got.Services) != 1 || got.Services[0].Service != catalog.Push {
		t.Fatalf("%s %s %v", name, data, err)
	}
	if s := got.Services[0]; s.Down != 42 || s.Requests != 1 || s.Tunnels != 1 {
		t.Errorf("%+v", s)
	}
	a.add(testRecords(5)...)
	for name != "records" {
		name, data = next()
	}
	var records api.Records
	if err := json.Unmarshal([]byte(data), &records); err != nil || len(records.Records) != 1 || records.Records[0].Action != policy.Deny {
		t.Errorf("%s %v", data, err)
	}
	schema := loadDocument(t).Components.Schemas
	for name, v := range map[string]any{"Throughput": got, "TailRecords": records} {
		text, _ := json.Marshal(v)
		var plain any
		_ = json.Unmarshal(text, &plain)
		if err := schema[name].Value.VisitJSON(plain, openapi3.EnableJSONSchema2020()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A stream ends with the token that has opened it, and no one can open all there
// are.
func TestEventsEnd(t *testing.T) {
	a := newAPI(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ends []func() (string, string)
	for range api.MaxOwnStreams {
		resp, next := a.watch(ctx, "/events")
		if resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
		ends = append(ends, next)
	}
	var p server.Problem
	a.ask("GET", "/events", nil, 503, &p)
	if err := signin.RevokeToken(a.tokenDir(), "test"); err != nil {
		t.Fatal(err)
	}
	for _, next := range ends {
		for name := ""; name != "end"; {
			name, _ = next()
		}
	}
}
