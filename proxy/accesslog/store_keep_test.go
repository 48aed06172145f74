package accesslog

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"espalier/policy"
)

// checkSums fails where the sums by service are not those of the records.
func checkSums(t *testing.T, s *Store) {
	t.Helper()
	got, err := s.Traffic(t.Context(), TrafficQuery{By: ByService})
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]Sum{}
	for _, r := range got.Rows {
		sums[r.Name] = r.Sum
	}
	if want := sumsOf(t, s, time.Time{}, time.Time{}, nameBy[ByService]); !reflect.DeepEqual(sums, want) {
		t.Errorf("sums %v, of the records %v", sums, want)
	}
}

func TestStoreOfAnotherVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(testStore, dir, nop)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.Exec("PRAGMA user_version = 1000"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := OpenStore(testStore, dir, nop); !errors.Is(err, ErrVersion) {
		t.Errorf("it is opened: %v", err)
	}
	if _, err := ReadStore(testStore, dir); !errors.Is(err, ErrVersion) {
		t.Errorf("it is read: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "s.db.damaged")); err == nil {
		t.Error("it is moved aside")
	}
}

// A damaged store is made again from the log, whether the damage is met at the
// start, while storing or by a search.
func TestDamagedStoreIsMadeAgain(t *testing.T) {
	garble := func(t *testing.T, path string, from int64) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		size, _ := f.Seek(0, io.SeekEnd)
		if _, err := f.WriteAt([]byte(strings.Repeat("x", int(size-from))), from); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		damage func(*testing.T, string)
	}{
		{"no database", func(t *testing.T, path string) { garble(t, path, 0) }},
		{"garbage behind the first page", func(t *testing.T, path string) { garble(t, path, 4096) }},
		{"cut", func(t *testing.T, path string) {
			if err := os.Truncate(path, 5000); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := openBoth(t, Config{File: "access.log", Format: "json"})
			list := eachSecond(50)
			for i := range list[:40] {
				b.log.Write(&list[i])
			}
			b.close()
			c.damage(t, filepath.Join(b.dir, testStore.Path))
			b.open()
			for i := range list[40:] {
				b.log.Write(&list[40+i])
			}
			await(t, "all records", func() bool {
				page, err := b.store.Search(t.Context(), Filter{}, Range{})
				return err == nil && len(page.Records) == len(list)
			})
			checkSums(t, b.store)
			if _, err := os.Stat(filepath.Join(b.dir, "s.db.damaged")); err != nil {
				t.Error(err)
			}
		})
	}
}

// Files that were rotated while nobody followed are read, compressed or not, and
// none twice.
func TestStoreReadsRotatedFiles(t *testing.T) {
	b := openBoth(t, Config{File: "access.log", Format: "json"})
	list := eachSecond(40)
	for i := range list[:10] {
		b.log.Write(&list[i])
	}
	b.close()
	write := func(name string, records []Record) {
		f, err := os.Create(filepath.Join(b.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var w io.Writer = f
		if strings.HasSuffix(name, ".gz") {
			z := gzip.NewWriter(f)
			defer z.Close()
			w = z
		}
		enc := newJSONEncoder("n")
		for i := range records {
			if _, err := w.Write(enc.append(nil, &records[i])); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What was followed in part was compressed, with more in it.
	if err := os.Remove(filepath.Join(b.dir, "access.log")); err != nil {
		t.Fatal(err)
	}
	write("access-2026-01-01T00-00-00.000-size.log.gz", list[:20])
	write("access-2026-01-02T00-00-00.000-time.log", list[20:30])
	write("access.log", list[30:])
	write("access-old.txt", []Record{{ID: 1000}}) // none of the log's
	b.open()
	b.settle(len(list))
	b.restart()
	b.settle(len(list))
	if got := b.store.Health().Records; got.Known != 0 || got.Stored != 0 {
		t.Errorf("read again at the next start: %+v", got)
	}
	if got := b.ids(); len(got) != len(list) || got[0] != 1 || got[len(got)-1] != ID(len(list)) {
		t.Errorf("records %v", got)
	}
	checkSums(t, b.store)
}

func TestBrokenRotatedFileHoldsNothingUp(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "access-2026-01-01T00-00-00.000-size.log.gz"), []byte("no gzip"), 0o600); err != nil {
		t.Fatal(err)
	}
	core, told := observer.New(zap.ErrorLevel)
	log, err := Open(Config{File: "access.log", Format: "json"}, dir, "n", nop)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(testStore, dir, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Feed(s); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		log.Write(&Record{ID: NextID(), Time: time.Now()})
		if err := log.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	log.Close()
	await(t, "the records", func() bool { return len(idsOf(t, s, Filter{})) == 3 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := told.Len(); n != 1 {
		t.Errorf("told %d times: %v", n, told.All())
	}
	if err := s.Health().Err; err != nil {
		t.Error(err)
	}
}

// Two processes that follow the same file, as while one takes over from another,
// store every record once.
func TestTwoStoresFollowOneLog(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{File: "access.log", Format: "json"}
	var logs []*Log
	var stores []*Store
	for range 2 {
		log, err := Open(cfg, dir, "n", nop)
		if err != nil {
			t.Fatal(err)
		}
		s, err := OpenStore(testStore, dir, nop)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Feed(s); err != nil {
			t.Fatal(err)
		}
		logs, stores = append(logs, log), append(stores, s)
	}
	list := eachSecond(60)
	for i := range list {
		logs[i%2].Write(&list[i])
		if i%10 < 2 {
			if err := logs[i%2].Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 2 {
		if err := logs[i].Flush(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "all records", func() bool { return len(idsOf(t, stores[0], Filter{})) == len(list) })
	checkSums(t, stores[1])
	n := Imported{}
	for i := range 2 {
		logs[i].Close()
		if err := stores[i].Close(); err != nil {
			t.Error(err)
		}
		n.add(stores[i].Health().Records)
	}
	if n.Stored != uint64(len(list)) || n.Bad != 0 {
		t.Errorf("stored %+v", n)
	}
}

func TestImport(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(testStore, dir, nop)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var file strings.Builder
	enc := newJSONEncoder("n")
	list := eachSecond(20)
	for _, r := range list {
		file.Write(enc.append(nil, &r))
	}
	file.WriteString("no record\n")
	for _, want := range []Imported{{Stored: 20, Bad: 1}, {Known: 20, Bad: 1}} {
		if got, err := s.Import(t.Context(), strings.NewReader(file.String())); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		checkSums(t, s)
	}
	// Once records are removed, they do not count twice.
	if _, err := s.removeOldest(t.Context(), list[10].Time.UnixMilli()); err != nil {
		t.Fatal(err)
	}
	before, err := s.Traffic(t.Context(), TrafficQuery{By: ByService})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Import(t.Context(), strings.NewReader(file.String())); err != nil || got != (Imported{Old: 10, Known: 10, Bad: 1}) {
		t.Errorf("after removal: %+v, %v", got, err)
	}
	if after, err := s.Traffic(t.Context(), TrafficQuery{By: ByService}); err != nil || after.Total() != before.Total() || after.Total().Requests != 20 {
		t.Errorf("sums %v, before %v; %v", after.Total(), before.Total(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Import(ctx, strings.NewReader(file.String())); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestRecordsAreRemovedByAge(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(StoreConfig{Path: "s.db", Keep: 24 * time.Hour}, dir, nop)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Unix(1_800_000_000, 0)
	s.now = func() time.Time { return now }
	enc := newJSONEncoder("n")
	var file strings.Builder
	for i := range 48 {
		file.Write(enc.append(nil, &Record{ID: ID(i + 1), Time: now.Add(time.Duration(i-47) * time.Hour), Service: "push", Action: policy.Tunnel, Client: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Host: fmt.Sprintf("h%d.example", i), Agent: fmt.Sprintf("secret-agent-%d.", i)}))
	}
	if _, err := s.Import(t.Context(), strings.NewReader(file.String())); err != nil {
		t.Fatal(err)
	}
	if err := s.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := idsOf(t, s, Filter{}); len(got) != 25 || got[0] != 24 {
		t.Errorf("records %v", got)
	}
	sum := func() int64 {
		t.Helper()
		got, err := s.Traffic(t.Context(), TrafficQuery{By: ByService, From: now.Add(-3 * 365 * 24 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return got.Total().Requests
	}
	if n := sum(); n != 48 {
		t.Errorf("the sums lose %d requests with their records", 48-n)
	}
	// Nor does any client stay known, by the hour or by the day, when no record has
	// it any more; hosts are nobody.
	named := func(by string, back time.Duration) (names []string, requests int64) {
		t.Helper()
		got, err := s.Traffic(t.Context(), TrafficQuery{By: by, From: now.Add(-back), To: now.Add(time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got.Rows {
			if r.Name != "" {
				names = append(names, r.Name)
			}
		}
		return names, got.Total().Requests
	}
	midnight := now.Add(-24 * time.Hour).Truncate(24 * time.Hour) // the day of the first record that is kept
	for _, tt := range []struct {
		by   string
		back time.Duration
		want int
	}{
		{ByClient, 7 * 24 * time.Hour, 25},
		{ByClient, 30 * 24 * time.Hour, int(now.Sub(midnight)/time.Hour) + 1},
		{ByHost, 7 * 24 * time.Hour, 48},
		{ByHost, 30 * 24 * time.Hour, 48},
	} {
		if names, requests := named(tt.by, tt.back); len(names) != tt.want || requests != 48 {
			t.Errorf("by %s of %s: %d are named, want %d; %d requests\n%v", tt.by, tt.back, len(names), tt.want, requests, names)
		}
	}
	// A file of that time does not name them again.
	if _, err := s.Import(t.Context(), strings.NewReader(file.String())); err != nil {
		t.Fatal(err)
	}
	if names, _ := named(ByClient, 7*24*time.Hour); len(names) != 25 {
		t.Errorf("after an import %v are named", names)
	}
	now = now.Add(3 * 365 * 24 * time.Hour)
	if err := s.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := idsOf(t, s, Filter{}); len(got) != 0 || sum() != 0 {
		t.Errorf("three years later: records %v, sums %d", got, sum())
	}
	// Nothing of them is left in the file either.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "s.db"))
	if err != nil || strings.Contains(string(content), "secret-agent-") {
		t.Errorf("removed records are in the file: %v", err)
	}
}

// What was removed while the clock was ahead does not keep out what comes after
// the clock was set right.
func TestStoreGoesOnAfterAClockThatWasAhead(t *testing.T) {
	s, err := OpenStore(StoreConfig{Path: "s.db", Keep: 24 * time.Hour}, t.TempDir(), nop)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	right := time.Unix(1_800_000_000, 0)
	now := right
	s.now = func() time.Time { return now }
	insert := func(id ID) {
		t.Helper()
		if _, err := s.insert(t.Context(), batch{records: []Record{{ID: id, Time: now}}}, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	insert(1)
	now = right.AddDate(10, 0, 0)
	insert(2)
	now = right.Add(time.Minute)
	insert(3)
	if got := idsOf(t, s, Filter{}); len(got) != 2 || !slices.Contains(got, 3) {
		t.Errorf("records %v", got)
	}
}

func TestRecordsAreRemovedBySize(t *testing.T) {
	s, err := OpenStore(StoreConfig{Path: "s.db", MaxSize: 1}, t.TempDir(), nop) // nothing is small enough
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := batch{}
	for i := range 3 * removeAtOnce / 2 {
		b.records = append(b.records, Record{ID: ID(i + 1), Time: time.Unix(1_700_000_000+int64(i), 0)})
	}
	if _, err := s.insert(t.Context(), b, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The oldest go; so many of the newest stay that one transaction could remove.
	if got := idsOf(t, s, Filter{}); len(got) == 0 || len(got) > removeAtOnce || got[len(got)-1] != ID(len(b.records)) {
		t.Errorf("%d records", len(got))
	}
	var mode int
	if err := s.write.QueryRow("PRAGMA auto_vacuum").Scan(&mode); err != nil || mode != 2 {
		t.Errorf("auto_vacuum is %d, %v: the file would never shrink", mode, err)
	}
}
