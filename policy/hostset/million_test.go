package hostset

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
)

// names makes names as block lists have them: 2 to 5 labels, words and numbers,
// some 20 bytes, many of them below the same domains. The same seed makes the
// same ones.
type names struct{ *rand.Rand }

func newNames(seed uint64) names { return names{rand.New(rand.NewPCG(seed, 0))} }

var (
	words = []string{"ad", "track", "metrics", "pixel", "stat", "click", "cdn", "shop", "best", "free", "game", "bonus", "news", "media",
		"online", "secure", "login", "pay", "prize", "video", "data", "tag", "sync", "beacon", "promo", "offer", "smart", "cloud", "events", "collect"}
	hosts   = []string{"ads", "www", "t", "tr", "track", "stats", "metrics", "api", "cdn", "s1", "go", "m", "a", "link", "email", "analytics"}
	endings = []string{"com", "com", "com", "com", "net", "org", "info", "top", "xyz", "club", "ru", "de", "cn", "com.br", "co.uk", "site", "online"}
)

func pick(r names, from []string) string { return from[r.IntN(len(from))] }

func (r names) append(b []byte) []byte {
	for range []int{0, 0, 1, 1, 1, 2, 3}[r.IntN(7)] {
		b = append(b, pick(r, hosts)...)
		if r.IntN(2) == 0 {
			b = strconv.AppendInt(b, int64(r.IntN(1000)), 36)
		}
		b = append(b, '.')
	}
	b = append(b, pick(r, words)...)
	if r.IntN(3) == 0 {
		b = append(b, '-')
	}
	b = append(b, pick(r, words)...)
	b = strconv.AppendInt(b, int64(r.IntN(40_000)), 36)
	return append(append(b, '.'), pick(r, endings)...)
}

// list is a list of n names, made while it is read, each line written by format.
type list struct {
	names
	n      int
	format func(b, name []byte) []byte
	line   bytes.Buffer
}

func (l *list) Read(p []byte) (int, error) {
	for l.line.Len() < len(p) && l.n > 0 {
		l.n--
		l.line.Write(append(l.format(nil, l.append(nil)), '\n'))
	}
	return l.line.Read(p)
}

var formats = map[string]func(b, name []byte) []byte{
	"plain":   func(b, name []byte) []byte { return append(b, name...) },
	"hosts":   func(b, name []byte) []byte { return append(append(b, "0.0.0.0 "...), name...) },
	"adblock": func(b, name []byte) []byte { return append(append(append(b, "||"...), name...), '^') },
}

const million = 1_000_000

// millionNames returns a list of a million different names, as a file.
func millionNames(t testing.TB, format string) []byte {
	t.Helper()
	// Some names come twice; whoever looks for a million of them gets a few more.
	text, err := io.ReadAll(&list{names: newNames(1), n: million + million/100, format: formats[format]})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The promise of this package: a million names in less than 40 MB, measured as
// the memory that is in use when everything else is gone. What is used beside it
// while the list is read is little.
func TestMillionNamesMemory(t *testing.T) {
	text := millionNames(t, "plain")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, report, err := Parse(bytes.NewReader(text), "")
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d names, %d bytes of text: %.1f MB of memory", s.Len(), len(text), float64(used)/1e6)
	if s.Len() < million || report.Bad+report.Skipped > 0 {
		t.Errorf("%d entries, %+v", s.Len(), report)
	}
	if used > 40_000_000 {
		t.Errorf("%d bytes are in use", used)
	}
	runtime.KeepAlive(text)
	// All are there, and others are not.
	all, missing := newNames(1), 0
	for range 100_000 {
		if _, ok := s.Match(string(all.append(nil))); !ok {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d names are missing", missing)
	}
	for i := range 100_000 {
		if entry, ok := s.Match(fmt.Sprint("www.other", i, ".example")); ok {
			t.Fatalf("%d: %q", i, entry)
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	s, _ := mustParse(t, "x.example\n@@||ok.x.example^\n||y.example^$important\n0.0.0.0 z.example\n")
	for _, host := range []string{"a.b.x.example", "a.ok.x.example", "www.y.example", "z.example", "a.z.example", "www.example.org"} {
		if n := testing.AllocsPerRun(100, func() { s.Match(host) }); n != 0 {
			t.Errorf("%s: %v allocations", host, n)
		}
	}
}

func BenchmarkParseMillion(b *testing.B) {
	for _, format := range []string{"plain", "hosts", "adblock"} {
		text := millionNames(b, format)
		b.Run(format, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if s, _, err := Parse(bytes.NewReader(text), ""); err != nil || s.Len() < million {
					b.Fatal(s.Len(), err)
				}
			}
			b.SetBytes(int64(len(text)))
		})
	}
}

// Look-ups in a million names, of as many different hosts as do not fit into a
// processor's cache.
func BenchmarkMatchMillion(b *testing.B) {
	s, _, err := Parse(bytes.NewReader(millionNames(b, "plain")), "")
	if err != nil {
		b.Fatal(err)
	}
	several := func(seed uint64, prefix string) []string {
		r, out := newNames(seed), make([]string, 1<<17)
		for i := range out {
			out[i] = prefix + string(r.append(nil))
		}
		return out
	}
	for _, bm := range []struct {
		name  string
		hosts []string
	}{
		{"in the list", several(1, "")},
		{"below one in the list", several(1, "www.")},
		{"not in the list", several(2, "")},
		{"not in the list, 7 to 10 labels", several(2, "a.bc.def.ghij.klmno.")},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.Match(bm.hosts[i&(1<<17-1)])
				i++
			}
		})
	}
}
