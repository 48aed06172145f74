//go:build linux

package scenario

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"espalier/policy"
	"espalier/proxy/accesslog"
)

func TestMain(m *testing.M) {
	flag.Parse()
	explicit := false
	flag.Visit(func(f *flag.Flag) { explicit = explicit || f.Name == "test.parallel" })
	if !explicit { // scenarios wait most of the time
		_ = flag.Set("test.parallel", "24")
	}
	goleak.VerifyTestMain(m)
}

// limitOf bounds a wait. None takes that long unless something hangs.
func limitOf(scale float64) time.Duration { return time.Duration(15 * scale * float64(time.Second)) }

// redLimit bounds a wait of a scenario that is known to fail, so that the one
// which hangs costs little.
const redLimit = 2 * time.Second

func TestScenarios(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scenarios", err)
	}
	var list []*scenario
	for _, path := range paths {
		s, err := load(path)
		if err == nil {
			err = s.check()
		}
		if err != nil {
			t.Error(err)
			continue
		}
		list = append(list, s)
	}
	playAll(t, list, "")
}

// playAll plays each scenario on each entry that it applies to. The scenarios must
// be all those of a name that begins with prefix, so that none is missed which is
// known to fail.
func playAll(t *testing.T, list []*scenario, prefix string) {
	red := readRed(t)
	for _, s := range list {
		for _, e := range entries {
			if !e.runs(s) {
				continue
			}
			key := s.name + " " + e.name
			known := red[key]
			delete(red, key)
			t.Run(s.name+"/"+e.name, func(t *testing.T) {
				t.Parallel()
				playOn(t, s, e, known)
			})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(red)) {
		if strings.HasPrefix(key, processPrefix) {
			continue
		}
		if made := strings.HasPrefix(key, madePrefix); strings.HasPrefix(key, prefix) && made == (prefix != "") {
			t.Errorf("testdata/red.txt: no scenario and entry %q", key)
		}
	}
}

// madePrefix begins the names of scenarios that are made by tests, and have no
// file.
const madePrefix = "bytes-"

// processPrefix begins the names of tests of the whole program, in cmd/espalier.
const processPrefix = "process-"

type redness int

const (
	green redness = iota
	failing
	flaky // fails sometimes
)

// readRed reads what is known to fail: a scenario and its entries in a line, "~"
// before an entry that fails only sometimes.
func readRed(t *testing.T) map[string]redness {
	red := map[string]redness{}
	f, err := os.Open("testdata/red.txt")
	if errors.Is(err, os.ErrNotExist) {
		return red
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		line, _, _ := strings.Cut(in.Text(), "#")
		words := strings.Fields(line)
		for i, e := range words {
			if i == 0 {
				continue
			}
			e, often := strings.CutPrefix(e, "~")
			red[words[0]+" "+e] = failing
			if often {
				red[words[0]+" "+e] = flaky
			}
		}
	}
	return red
}

var logRed = flag.Bool("red", false, "print scenarios that fail as lines of testdata/red.txt, in place of failing")

func playOn(t *testing.T, s *scenario, e entry, known redness) {
	// Where a scenario has bounds, a slow machine may exceed them. It is tried again
	// with longer ones then; a fault fails on each of them.
	scales := []float64{1}
	if len(s.bounds) > 0 {
		scales = []float64{1, 3, 8}
	}
	limit := limitOf
	if known != green || *logRed {
		scales = scales[:1]
		limit = func(float64) time.Duration { return redLimit }
	}
	if *logRed {
		limit = func(float64) time.Duration { return 3 * redLimit }
	}
	var err error
	for i, scale := range scales {
		dir := filepath.Join(t.TempDir(), strconv.Itoa(i))
		if err = os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err = s.play(dir, e, scale, limit(scale)); err == nil {
			break
		}
		if i+1 < len(scales) {
			t.Logf("with bounds × %g: %v", scale, err)
		}
	}
	switch {
	case *logRed:
		if err != nil {
			fmt.Printf("RED %s %s: %v\n", s.name, e.name, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	case known == failing && err == nil:
		t.Errorf("passes: remove it from testdata/red.txt")
	case known != green:
		t.Logf("known to fail: %v", err)
	case err != nil:
		t.Error(err)
	}
}

// check finds mistakes in s that running it might hide.
func (s *scenario) check() error {
	known := entryConditions()
	conds := fieldsOf(s.only)
	verbs := map[string]bool{}
	for _, v := range strings.Fields("clock elapsed keep use another-stream any-interims connect accept send try-send send-end flood close-all refused drip pause receive answer request head relay half-close reset close end closed cut signal await") {
		verbs[v] = true
	}
	for _, st := range slices.Concat(s.client, s.origin) {
		if !verbs[st.verb] {
			return fmt.Errorf("%s: line %d: unknown step %q", s.name, st.line, st.verb)
		}
		conds = append(conds, st.conds...)
	}
	for _, st := range s.want {
		if !slices.Contains([]string{"asked", "connections", "record", "records"}, st.verb) {
			return fmt.Errorf("%s: line %d: unknown expectation %q", s.name, st.line, st.verb)
		}
		conds = append(conds, st.conds...)
	}
	for _, c := range conds {
		if !known[strings.TrimPrefix(c, "!")] {
			return fmt.Errorf("%s: unknown entry %q", s.name, c)
		}
	}
	return nil
}

func fieldsOf(s string) []string { return strings.Fields(s) }

// play runs s once on e.
func (s *scenario) play(dir string, e entry, scale float64, limit time.Duration) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, refuse := s.setup["refuse"]
	o, err := newOrigin(ctx, refuse)
	if err != nil {
		return err
	}
	defer o.close()
	authority := strings.Replace(o.addr, "127.0.0.1", host, 1)
	_, port, _ := strings.Cut(authority, ":")
	r := &run{
		scenario: s, entry: e, ctx: ctx, cancel: cancel, scale: scale, limit: limit, origin: o,
		signals: &signals{list: map[string]chan struct{}{}},
		vars:    map[string]string{"host": authority, "name": host, "port": port, "url": "http://" + authority, "to": ""},
	}
	if e.inside {
		r.vars["url"] = ""
	}
	if e.parent {
		r.vars["to"] = "http://" + authority
	}
	o.run = r
	if r.rig, err = startRig(dir, s, e, scale, o.addr); err != nil {
		return err
	}
	if !refuse {
		o.handlers.Go(o.serve)
	}
	var mu sync.Mutex
	var errs []error
	failed := func(err error) {
		if err == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if len(errs) == 0 || !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
		cancel()
	}
	var parties sync.WaitGroup
	var links []link
	parties.Go(func() { failed(o.play()) })
	parties.Go(func() {
		p := &party{run: r, name: "client"}
		p.open = func() (link, *decoder, error) {
			l, want, err := r.dial()
			if l != nil {
				links = append(links, l)
			}
			return l, want, err
		}
		err := p.play(s.client)
		if err == nil && len(p.queue) > 0 && p.queue[0].kind != endEvent {
			err = fmt.Errorf("client: got %.300q behind all that is expected", p.queue[0].text)
		}
		failed(err)
	})
	parties.Wait()
	for _, l := range links {
		l.close()
	}
	records, err := r.rig.stop(limit)
	conns, asked := o.stop()
	if len(errs) > 0 {
		return errors.Join(errs[:1]...) // the others may follow from it
	}
	return errors.Join(err, s.compare(e, r.vars, records, conns, asked))
}

// dial opens a connection of the client.
func (r *run) dial() (link, *decoder, error) {
	ctx, cancel := context.WithTimeout(r.ctx, r.limit)
	defer cancel()
	tcp, conn, err := r.rig.dial(ctx, r.entry, r.vars["host"])
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, nil, err
	}
	context.AfterFunc(r.ctx, func() { tcp.Close() })
	methods := new([]string)
	want := &decoder{responses: true, methods: methods}
	out := &decoder{methods: methods}
	if r.entry.http2 {
		l, err := newH2Link(conn, out)
		return l, want, err
	}
	return &h1link{tcp: tcp, conn: conn, in: &decoder{responses: true, methods: methods}, out: out, drip: r.entry.drip}, want, nil
}

// compare holds what came of s against what it wants.
func (s *scenario) compare(e entry, vars map[string]string, records []accesslog.Record, conns, asked int) error {
	var errs []error
	if e.inside { // the tunnel that requests come in has a record of its own
		records = slices.DeleteFunc(records, func(r accesslog.Record) bool { return r.Method == "CONNECT" })
	}
	slices.SortFunc(records, func(a, b accesslog.Record) int { return cmp.Compare(a.ID, b.ID) }) // as they were asked
	expected, counted := 0, false
	want := slices.Clone(s.want)
	for range s.rounds - 1 {
		for _, st := range s.want {
			if st.verb == "record" {
				want = append(want, st)
			}
		}
	}
	for _, st := range want {
		if !applies(e, st.conds) {
			continue
		}
		var err error
		switch st.verb {
		case "asked":
			err = inRange("requests reached the origin", asked, st.args[0])
		case "connections":
			err = inRange("connections reached the origin", conns, st.args[0])
		case "records":
			counted = true
			err = inRange("records", len(records), st.args[0])
		case "record":
			if expected++; expected <= len(records) {
				err = st.compareRecord(records[expected-1], e, vars)
			}
		}
		errs = append(errs, err)
	}
	if !counted && len(s.want) > 0 && expected != len(records) {
		var list strings.Builder
		for _, r := range records {
			fmt.Fprintf(&list, " [%s %s%s %d %s %q]", r.Method, r.Host, r.URL, r.Status, r.Action, r.Error)
		}
		errs = append(errs, fmt.Errorf("%d records, want %d:%s", len(records), expected, list.String()))
	}
	return errors.Join(errs...)
}

// inRange compares n with "2" or "1..3".
func inRange(what string, n int, want string) error {
	low, high, ok := strings.Cut(want, "..")
	if !ok {
		high = low
	}
	a, err := strconv.Atoi(low)
	b, err2 := strconv.Atoi(high)
	if err = errors.Join(err, err2); err != nil || n < a || n > b {
		return errors.Join(err, fmt.Errorf("%d %s, want %s", n, what, want))
	}
	return nil
}

// compareRecord compares the fields that st names; an error that it does not name
// must not be there.
func (st step) compareRecord(r accesslog.Record, e entry, vars map[string]string) error {
	passed := policy.Forward
	if r.Method == "CONNECT" {
		passed = policy.Tunnel
	} else if e.inside {
		passed = policy.Inspect
	}
	got := map[string]string{
		"method": r.Method, "host": r.Host, "port": strconv.Itoa(int(r.Port)), "url": r.URL, "action": string(r.Action), "rule": r.Rule,
		"status": strconv.Itoa(r.Status), "up": strconv.FormatInt(r.Up, 10), "down": strconv.FormatInt(r.Down, 10), "error": r.Error, "agent": r.Agent,
	}
	want := map[string]string{"error": "", "host": regexp.QuoteMeta(host)}
	var errs []error
	for _, a := range st.args {
		if least, ok := strings.CutPrefix(a, "duration>="); ok {
			if d, err := time.ParseDuration(least); err != nil || r.Duration < d {
				errs = append(errs, errors.Join(err, fmt.Errorf("record of line %d: duration %s, want at least %s", st.line, r.Duration, least)))
			}
			continue
		}
		name, pattern, _ := strings.Cut(expand(a, vars), "=")
		if _, ok := got[name]; !ok {
			return fmt.Errorf("line %d: unknown field %q", st.line, name)
		}
		if name == "action" {
			pattern = strings.Replace(pattern, "pass", string(passed), 1)
		}
		want[name] = pattern
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if ok, err := regexp.MatchString("^(?s:"+want[name]+")$", got[name]); !ok || err != nil {
			errs = append(errs, errors.Join(err, fmt.Errorf("record of line %d: %s %q, want %q", st.line, name, got[name], want[name])))
		}
	}
	return errors.Join(errs...)
}
