//go:build linux

package main

import (
	"os"
	"slices"
	"testing"
	"time"
)

const fixtures = procfs("testdata/proc")

func TestParseStat(t *testing.T) {
	tests := []struct {
		name, line string
		want       procStat
		fails      bool
	}{
		{
			name: "plain",
			line: "7 (haproxy) S 3 7 7 0 -1 0 0 0 0 0 120 80 4 6 20 0 1 0 9 9 9",
			want: procStat{ppid: 3, own: 2 * time.Second, children: 100 * time.Millisecond},
		},
		{
			name: "command with spaces, parentheses and digits",
			line: "7 (a) S 9 (b 1) R 3 7 7 0 -1 0 0 0 0 0 1 0 0 0 20 0 1 0 9 9 9",
			want: procStat{ppid: 3, own: 10 * time.Millisecond},
		},
		{name: "empty", fails: true},
		{name: "cut off", line: "7 (haproxy) S 3 7 7", fails: true},
		{name: "no number", line: "7 (haproxy) S x 7 7 0 -1 0 0 0 0 0 120 80 4 6 20 0 1 0 9 9 9", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStat([]byte(tt.line))
			if (err != nil) != tt.fails || got != tt.want {
				t.Errorf("got %+v, %v; want %+v, error %v", got, err, tt.want, tt.fails)
			}
		})
	}
}

func TestTreeHoldsDescendantsOnly(t *testing.T) {
	got, err := fixtures.tree(100)
	if want := []int{100, 200, 201}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := fixtures.tree(999); err == nil {
		t.Error("a process that is not there gives no error")
	}
}

func TestUsageSumsDescendants(t *testing.T) {
	got, err := fixtures.usage(100)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64((100 + 200 + 201) << 10); got.pss != want || got.fds != 9 {
		t.Errorf("got %d bytes and %d descriptors, want %d and 9", got.pss, got.fds, want)
	}
}

func TestSlab(t *testing.T) {
	// The caches of sockets and pipes by their living objects, and what is not
	// in any cache: all of the slab but the pages of the caches.
	const pages = (1377*4 + 8*8 + 313 + 377 + 4) * 4096
	counted, cached, err := parseSlabinfo(read(t, "testdata/proc/slabinfo"), 4096)
	if want := int64(100*2496 + 10*1024); err != nil || counted != want || cached != pages {
		t.Errorf("got %d and %d, %v; want %d and %d", counted, cached, err, want, int64(pages))
	}
	if _, _, err := parseSlabinfo("TCP 1 2 3\n", 4096); err == nil {
		t.Error("a line that is cut off gives no error")
	}
	if got, err := procfs("testdata").kilobytes("testdata/proc/meminfo", "Slab"); err != nil || got != 58192<<10 {
		t.Errorf("Slab: got %d, %v", got, err)
	}
	if _, err := fixtures.kilobytes("testdata/proc/meminfo", "Sla"); err == nil {
		t.Error("a key that is not there gives no error")
	}
}

func TestTicks(t *testing.T) {
	all, stolen, err := fixtures.ticks()
	if want := int64(70161 + 46225 + 404978 + 1588 + 7369 + 3160); err != nil || all != want || stolen != 3160 {
		t.Errorf("got %d and %d, %v; want %d and 3160", all, stolen, err, want)
	}
}

func TestMachine(t *testing.T) {
	m := thisMachine(fixtures)
	if m.CPU != "AMD EPYC" || m.Memory != 24684084<<10 || m.Load != 2.63 {
		t.Errorf("got %+v", m)
	}
	if m.Cores < 1 || m.Kernel == "" || m.Go == "" {
		t.Errorf("something is missing: %+v", m)
	}
	if got := cpuModel("processor : 0\nBogoMIPS : 50\n"); got != "" {
		t.Errorf("no model name: got %q", got)
	}
}

func TestProcessClockCountsWork(t *testing.T) {
	fs := procfs("/proc")
	before, err := fs.cpu(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const work = 20 * time.Millisecond
	for { // CPU time, not time that passes: it ends however busy the machine is
		now, err := processClock(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now-before >= work {
			break
		}
	}
	after, err := fs.cpu(os.Getpid())
	if err != nil || after-before < work {
		t.Errorf("spent at least %s, counted %s, %v", work, after-before, err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
