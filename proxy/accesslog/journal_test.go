package accesslog

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// journaled opens an access log with a journal that is written when the test says so.
func journaled(t testing.TB, dir string, cfg Config) *Log {
	t.Helper()
	if cfg.File == "" {
		cfg.File = "access.log"
	}
	cfg.Format = "json"
	l, err := Open(cfg, dir, "n", nop)
	if err != nil {
		t.Fatal(err)
	}
	close(l.newJournal(dir).done) // nothing runs
	t.Cleanup(func() { l.Close() })
	return l
}

// tunnelRecord is the record of a tunnel that begins now.
func tunnelRecord() *Record {
	return &Record{
		Time: time.Now().Add(-time.Minute), ID: NextID(), Client: netip.MustParseAddr("10.1.2.3"), User: "anna", Method: "CONNECT",
		Host: "1-courier.push.apple.com", Port: 5223, Service: "push", Action: "tunnel", Rule: "apple", Status: 200,
		Upstream: netip.MustParseAddrPort("17.57.146.4:5223"), Agent: "apsd",
	}
}

// newTunnel is a tunnel that begins now.
func newTunnel() *Tunnel { return &Tunnel{Record: *tunnelRecord()} }

// open notes a new tunnel.
func open(l *Log) *Tunnel {
	t := newTunnel()
	l.OpenTunnel(t)
	return t
}

// end writes the record of a tunnel after 9 bytes.
func end(l *Log, t *Tunnel) {
	t.Settle()
	t.Record.Time, t.Record.Up = time.Now(), 9
	l.WriteTunnel(t)
}

// killed copies what the process of dir would leave if it were killed now.
func killed(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// restarted are the records of dir after the next start, and a further one.
func restarted(t *testing.T, dir string) []*Record {
	t.Helper()
	for range 2 {
		l := journaled(t, dir, Config{})
		l.journal.takeOver(func(*Record) {})
		if err := l.journal.flush(); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "tunnels-*")); left != nil {
		t.Errorf("%v are left", left)
	}
	var list []*Record
	if err := ReadAll(filepath.Join(dir, "access.log"), func(r *Record) error { list = append(list, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestJournalKilled(t *testing.T) {
	for _, tt := range []struct {
		name        string
		do          func(t *testing.T, l *Log, w *Tunnel)
		interrupted bool
		up          int64
	}{
		{"while it is open", func(*testing.T, *Log, *Tunnel) {}, true, 0},
		{"after bytes", func(t *testing.T, l *Log, w *Tunnel) { w.Moved(7, 8); l.journal.flush() }, true, 7},
		{"after bytes that are not written", func(t *testing.T, l *Log, w *Tunnel) { w.Moved(7, 8) }, true, 0},
		{"after it was written anew", func(t *testing.T, l *Log, w *Tunnel) { w.Moved(7, 8); l.journal.rewrite() }, true, 7},
		{"between the end and the record", func(t *testing.T, l *Log, w *Tunnel) { w.Settle(); l.journal.flush() }, true, 0},
		{"with the record in memory", func(t *testing.T, l *Log, w *Tunnel) { end(l, w) }, true, 0},
		{"with the record in the file alone", func(t *testing.T, l *Log, w *Tunnel) { end(l, w); l.Flush() }, false, 9},
		{"with the end in both", func(t *testing.T, l *Log, w *Tunnel) { end(l, w); l.journal.flush() }, false, 9},
		{"after a second signal", func(t *testing.T, l *Log, w *Tunnel) {
			w.Moved(7, 8)
			l.Interrupt()
			end(l, w)
			l.Flush()
		}, true, 7},
		{"by a full disk", func(t *testing.T, l *Log, w *Tunnel) {
			l.journal.file.Close() // nothing can be written
			w.Moved(7, 8)
			l.journal.flush()
			w.Moved(8, 9)
			l.journal.flush() // written anew
		}, true, 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			l := journaled(t, dir, Config{})
			w := open(l)
			r := w.Record
			l.journal.flush()
			tt.do(t, l, w)
			list := restarted(t, killed(t, dir))
			if len(list) != 1 {
				t.Fatalf("%d records, want one", len(list))
			}
			got := list[0]
			if got.ID != r.ID || got.Error == Interrupted != tt.interrupted || got.Up != tt.up {
				t.Errorf("%+v", got)
			}
			if tt.interrupted && (got.Duration < 59*time.Second || got.Duration > 2*time.Minute || got.Node != "n" ||
				got.User != r.User || got.Agent != r.Agent || got.Upstream != r.Upstream || got.Status != 200) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A journal that is written anew has what is open, in as many writes as it takes.
func TestJournalOfManyTunnels(t *testing.T) {
	dir := t.TempDir()
	l := journaled(t, dir, Config{})
	const many = 3 * maxPiece / 300
	for range many {
		open(l)
	}
	l.journal.flush()
	if err := l.journal.rewrite(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(l.journal.path)
	if err != nil || journalSlack+3*info.Size() != l.journal.room || info.Size() < 3*maxPiece {
		t.Errorf("%d bytes, room for %d, %v", info.Size(), l.journal.room, err)
	}
	if n := len(restarted(t, killed(t, dir))); n != many {
		t.Errorf("%d records, want %d", n, many)
	}
}

// A tunnel has a line from its age on, and none if it ends before.
func TestJournalOfYoungTunnels(t *testing.T) {
	dir := t.TempDir()
	l := journaled(t, dir, Config{})
	want := func(what, text string) {
		t.Helper()
		l.journal.flush()
		if got, err := os.ReadFile(l.journal.path); err != nil || !strings.Contains(string(got), text) || (text == "") != (string(got) == journalHeader) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	end(l, open(l))
	want("ended between two flushes", "")
	young := func() *Tunnel {
		w := newTunnel()
		w.Record.Time = time.Now().Add(time.Hour) // it does not get older than that here
		l.OpenTunnel(w)
		w.Moved(1, 2)
		return w
	}
	one, two := young(), young()
	want("both young", "")
	if !l.journal.waits() {
		t.Error("nothing is to be written later")
	}
	end(l, one)
	want("the first ended", "")
	two.Change(func() { two.Record.Time = time.Now().Add(-journalAge) })
	want("old enough", `"up":1,`)
	if l.journal.waits() {
		t.Error("something is to be written later")
	}
	end(l, two)
	want("ended", "\n-"+two.Record.ID.String())
}

// Interrupt keeps the records of other requests, too.
func TestInterruptFlushes(t *testing.T) {
	for _, keep := range []bool{false, true} {
		dir := t.TempDir()
		l, err := Open(Config{File: "access.log", Format: "json"}, dir, "n", nop)
		if err != nil {
			t.Fatal(err)
		}
		if keep {
			close(l.newJournal(dir).done)
		}
		l.Write(tunnelRecord())
		if err := l.Interrupt(); err != nil {
			t.Fatal(err)
		}
		if n := len(restarted(t, killed(t, dir))); n != 1 {
			t.Errorf("journal %t: %d records", keep, n)
		}
		l.Close()
	}
}

// The journal of a process that lives is its own, until it has ended.
func TestJournalOfTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	old, next := journaled(t, dir, Config{}), journaled(t, dir, Config{File: "next.log"})
	open(old)
	old.journal.flush()
	var got []*Record
	take := func() bool { return next.journal.takeOver(func(r *Record) { got = append(got, r) }) }
	if again := take(); !again || got != nil {
		t.Fatalf("%v was taken from a process that lives; again %t", got, again)
	}
	old.journal.rewrite()
	if again := take(); !again || got != nil {
		t.Fatalf("%v was taken from a process that lives; again %t", got, again)
	}
	old.Close()
	take()
	next.journal.flush()
	if again := take(); again || len(got) != 1 {
		t.Errorf("%d records, want one; again %t", len(got), again)
	}
}

// While the access log cannot be written, the ends of tunnels are not in the journal.
func TestJournalWaitsForRecords(t *testing.T) {
	dir, out := t.TempDir(), &disk{}
	l := newLog(Config{Format: "json"}, "n", out, nop)
	defer l.Close()
	close(l.newJournal(dir).done)
	w := open(l)
	l.journal.flush()
	left := func() int {
		f, err := os.Open(l.journal.path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m, bad, err := readJournal(f)
		if err != nil || bad > 0 {
			t.Fatal(bad, err)
		}
		return len(m)
	}
	end(l, w)
	if err := l.journal.flush(); err == nil || left() != 1 {
		t.Errorf("%d tunnels are open, error %v", left(), err)
	}
	out.free(1e6)
	if err := l.journal.flush(); err != nil || left() != 0 {
		t.Errorf("%d tunnels are open, error %v", left(), err)
	}
}

// The journal hides what records hide.
func TestJournalIsAnonymous(t *testing.T) {
	for _, how := range []Anonymize{Truncate, Pseudonym} {
		t.Run(how.String(), func(t *testing.T) {
			dir := t.TempDir()
			l := journaled(t, dir, Config{Anonymize: how})
			r := &open(l).Record
			l.journal.flush()
			text, err := os.ReadFile(l.journal.path)
			if err != nil || bytes.Contains(text, []byte("10.1.2.3")) || bytes.Contains(text, []byte("anna")) {
				t.Errorf("%s, %v", text, err)
			}
			l.Write(r)
			l.Flush()
			list := restarted(t, killed(t, dir))
			r.ID = NextID()
			if len(list) != 1 {
				t.Fatalf("%d records", len(list))
			}
		})
	}
}

// The file does not grow with what has ended.
func TestJournalStaysSmall(t *testing.T) {
	l := journaled(t, t.TempDir(), Config{})
	stays := open(l)
	for i := range 10 * journalSlack / 300 {
		w := open(l)
		stays.Moved(int64(i+1), 0)
		l.journal.flush()
		end(l, w)
		if i%50 == 0 {
			l.journal.flush()
		}
	}
	info, err := os.Stat(l.journal.path)
	if err != nil || info.Size() > 2*journalSlack {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	if len(l.journal.open) != 1 || len(l.journal.open[:cap(l.journal.open)]) > 64 {
		t.Errorf("%d open, room for %d", len(l.journal.open), cap(l.journal.open))
	}
}

// Whatever happens at a time, each tunnel has one record.
func TestJournalAtOnce(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Config{File: "access.log", Format: "json"}, dir, "n", nop)
	if err != nil {
		t.Fatal(err)
	}
	l.KeepJournal(dir, func() {}, func(*Record) {})
	want := map[ID]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 300 {
				w := newTunnel()
				mu.Lock()
				want[w.Record.ID] = 1
				mu.Unlock()
				l.OpenTunnel(w)
				w.Moved(int64(i), 1)
				if i%3 == 0 {
					_ = l.journal.flush()
				}
				if i%5 != 0 { // the others stay open
					end(l, w)
				}
			}
		})
	}
	all.Go(func() { _ = l.Interrupt() })
	all.Wait()
	if err := l.Interrupt(); err != nil {
		t.Fatal(err)
	}
	got := map[ID]int{}
	for _, r := range restarted(t, killed(t, dir)) {
		got[r.ID]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d records of %d tunnels", len(got), len(want))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "tunnels-*")); left != nil {
		t.Errorf("%v are left", left)
	}
}

// journalLines is a journal of these lines, in which @ stands for the ID n.
func journalLines(lines ...string) string {
	r := &Record{Time: time.Unix(1, 0), ID: 7, Action: "tunnel"}
	text := strings.NewReplacer("+@", "+"+strings.TrimSpace(string(recordEncoder.append(nil, r))), "@", r.ID.String())
	return text.Replace(journalHeader + strings.Join(lines, "\n"))
}

func TestReadJournal(t *testing.T) {
	long := strings.Repeat("x", 2*maxLine)
	for _, tt := range []struct {
		name, text string
		up         int64 // of the tunnel that is open; -1: none is
		bad        int
		unknown    bool
	}{
		{"empty", journalLines(), -1, 0, false},
		{"open", journalLines("+@", ""), 0, 0, false},
		{"moved", journalLines("+@", "=@ 5 6", "=@ 7 8", ""), 7, 0, false},
		{"ended", journalLines("+@", "=@ 5 6", "-@", ""), -1, 0, false},
		{"ended, not known to be open", journalLines("-@", "=@ 5 6", ""), -1, 0, false},
		{"torn at the beginning of a tunnel", journalLines("+@"), -1, 0, false},
		{"torn amid bytes", journalLines("+@", "=@ 5 6", "=@ 7"), 5, 0, false},
		{"torn at the end of a tunnel", journalLines("+@", "-@"), 0, 0, false},
		{"damaged", journalLines("+@", "", "nonsense", "=@ 1", "=@ -1 0", "=@ 1 2 3", "-@ 1", "=x 1 2", "+{}", "\x00\x00", "=@ 5 6", ""), 5, 9, false},
		{"a long line", journalLines("+@", long, "=@ 5 6", ""), 5, 1, false},
		{"a long line that is torn", journalLines("+@", "=@ 5 6", long), 5, 0, false},
		{"another version", strings.Replace(journalLines("+@", ""), "1", "2", 1), -1, 0, true},
		{"no header", "", -1, 0, true},
		{"a long header", long, -1, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			open, bad, err := readJournal(strings.NewReader(tt.text))
			up := int64(-1)
			if r := open[7]; r != nil {
				up = r.Up
			}
			if up != tt.up || len(open) > 1 || bad != tt.bad || (err != nil) != tt.unknown {
				t.Errorf("%d bytes, %d open, %d bad lines, error %v", up, len(open), bad, err)
			}
		})
	}
}

// A damaged journal stops nothing, and is moved aside.
func TestDamagedJournal(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		records    int
	}{
		{"a bad line", journalLines("+@", "nonsense", ""), 1},
		{"another version", "espalier tunnels 99\n", 0},
		{"empty", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "tunnels-x.journal"), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			core, told := observer.New(zap.WarnLevel)
			l := journaled(t, dir, Config{})
			l.log = zap.New(core)
			n := 0
			l.journal.takeOver(func(*Record) { n++ })
			if err := l.journal.flush(); err != nil {
				t.Fatal(err)
			}
			if l.journal.takeOver(func(*Record) { n++ }) || n != tt.records {
				t.Errorf("%d records, want %d", n, tt.records)
			}
			if told.FilterMessageSnippet("damaged").Len() != 1 {
				t.Errorf("the log has %v", told.All())
			}
			if text, err := os.ReadFile(filepath.Join(dir, "tunnels-x.journal.damaged")); string(text) != tt.text {
				t.Errorf("moved aside: %q, %v", text, err)
			}
		})
	}
}

func FuzzReadJournal(f *testing.F) {
	f.Add(journalLines("+@", "=@ 5 6", "-@", ""))
	f.Add(journalLines("+@", "=@ 5 6", "=@ 7"))
	f.Add(journalLines("+@", "", "nonsense", "=@ -1 0", "+{}", ""))
	f.Fuzz(func(t *testing.T, text string) {
		open, bad, err := readJournal(strings.NewReader(text))
		if err != nil && len(open) > 0 {
			t.Errorf("%d open, though %v", len(open), err)
		}
		for id, r := range open {
			if r.ID != id || r.Up < 0 && !strings.Contains(text, "-") {
				t.Errorf("%v: %+v", id, r)
			}
		}
		// What a crash tears off the end changes nothing before it.
		if i := strings.LastIndexByte(text, '\n'); i >= 0 && err == nil {
			before, worse, _ := readJournal(strings.NewReader(text[:i+1]))
			if !slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(open))) || worse != bad {
				t.Errorf("%d open, %d bad; without the torn line %d, %d", len(open), bad, len(before), worse)
			}
		}
	})
}

// BenchmarkTunnelRecord is what opening and closing a tunnel costs the access log.
func BenchmarkTunnelRecord(b *testing.B) {
	for _, kept := range []bool{false, true} {
		b.Run(fmt.Sprintf("journal=%t", kept), func(b *testing.B) {
			dir := b.TempDir()
			l, err := Open(Config{File: "access.log", Format: "json"}, dir, "n", nop)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			if kept {
				l.KeepJournal(dir, func() {}, func(*Record) {})
			}
			b.ReportAllocs()
			for b.Loop() {
				w := &Tunnel{Record: *benchRecord}
				l.OpenTunnel(w)
				end(l, w)
			}
		})
	}
}

var benchRecord = tunnelRecord()

// What is modified of a tunnel that is open is in its record after a crash, soon.
func TestJournalOfModifiedTunnels(t *testing.T) {
	dir := t.TempDir()
	l := journaled(t, dir, Config{})
	plain, modified, ended, late := open(l), open(l), open(l), newTunnel()
	late.Change(func() { late.Record.Rule = "early" })
	if err := l.journal.flush(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*Tunnel{modified, ended} {
		x.Change(func() { x.Record.Rule, x.Record.Service = "default", "other" })
		x.Moved(7, 8)
	}
	select {
	case <-l.journal.stirred:
	default:
		t.Error("run was not woken")
	}
	end(l, ended)
	l.OpenTunnel(late)
	if err := l.journal.flush(); err != nil {
		t.Fatal(err)
	}
	modified.Moved(70, 80)
	if err := l.journal.flush(); err != nil {
		t.Fatal(err)
	}
	got := map[ID]string{}
	for _, r := range restarted(t, killed(t, dir)) {
		got[r.ID] = fmt.Sprint(r.Rule, r.Service, r.Up, r.Error)
	}
	for x, want := range map[*Tunnel]string{
		plain: "applepush0" + Interrupted, modified: "defaultother70" + Interrupted, ended: "defaultother9", late: "earlypush0" + Interrupted,
	} {
		if got[x.Record.ID] != want {
			t.Errorf("%q, want %q", got[x.Record.ID], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d records", len(got))
	}
}
