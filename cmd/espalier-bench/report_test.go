//go:build linux

package main

import (
	"flag"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

func TestSpread(t *testing.T) {
	tests := []struct {
		name string
		in   []float64
		want spread
	}{
		{"one", []float64{3}, spread{3, 3, 3}},
		{"odd, unsorted", []float64{9, 1, 4}, spread{4, 1, 9}},
		{"even", []float64{4, 1, 2, 9}, spread{3, 1, 9}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := spreadOf(tt.in); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got := spreadOf(nil); !math.IsNaN(got.median) {
		t.Errorf("of nothing: got %v", got)
	}
}

func TestPercentile(t *testing.T) {
	d := make([]time.Duration, 100)
	for i := range d {
		d[i] = time.Duration(i + 1)
	}
	tests := []struct {
		p    float64
		in   []time.Duration
		want time.Duration
	}{
		{0.50, d, 50}, {0.99, d, 99}, {1, d, 100}, {0, d, 1}, {0.99, d[:3], 3}, {0.5, nil, 0},
	}
	for _, tt := range tests {
		if got := percentile(tt.in, tt.p); got != tt.want {
			t.Errorf("p%v of %d: got %d, want %d", 100*tt.p, len(tt.in), got, tt.want)
		}
	}
}

// sampleResult is a run of two rounds, the second on a machine half as fast.
func sampleResult() *result {
	r := &result{
		Date:    time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC),
		Machine: machine{CPU: "Example CPU", Cores: 2, Memory: 8 << 30, Kernel: "6.1.0", Go: "1.26.8"},
		Terms:   terms{Rounds: 2, Concurrency: 16, Streams: 4, Files: 20000, User: "nobody", Beside: 1000, Awake: true},
		Peers:   []peerInfo{{"espalier", "abc", "log on"}, {"haproxy", "2.6", "plain TCP"}, {"squid", "5.7", "log on"}},
		Skipped: []string{"skipped: tinyproxy not found: apt-get install tinyproxy"},
		Stolen:  0.031,
	}
	for round, slow := range map[int]float64{1: 1, 2: 2} {
		add := func(peer, scenario string, v values) {
			r.Samples = append(r.Samples, sample{Round: round, Scenario: scenario, Peer: peer, Values: v})
		}
		add("espalier", "open", values{"open-us": 60 * slow})
		add("haproxy", "open", values{"open-us": 50 * slow})
		add("squid", "open", values{"open-us": 150 * slow})
		add("espalier", "bulk-down", values{"bulk-down": 0.2})
		add("squid", "bulk-down", values{"bulk-down": 0.4})
		add("espalier", "http-bulk", values{"http-bulk": 0.25})
		add("espalier", "idle", values{"idle-kb": 0.31, "idle-fds": 2, "idle-cpu": 0, "idle-tunnels": 5000})
		add("haproxy", "idle", values{"idle-kb": 3.3, "idle-fds": 2, "idle-cpu": 0.05, "idle-tunnels": 5000})
	}
	r.Samples = append(r.Samples, sample{Round: 1, Scenario: "bulk-down", Peer: "haproxy", Err: "corrupt data: byte 7 is 0x00, 0x01 was sent"})
	return r
}

func TestReportGolden(t *testing.T) {
	for file, markdown := range map[string]bool{"testdata/report.txt": false, "testdata/report.md": true} {
		t.Run(file, func(t *testing.T) {
			var b strings.Builder
			if err := sampleResult().report(&b, "espalier", markdown); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := read(t, file); b.String() != want {
				t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
			}
		})
	}
}

func TestRatioIsFormedWithinARound(t *testing.T) {
	r := sampleResult()
	if got := r.ratio("espalier", "open-us", "haproxy", "open-us"); got != (spread{1.2, 1.2, 1.2}) {
		t.Errorf("got %v, want 1.2 in both rounds", got)
	}
	if got := r.ratio("espalier", "bulk-down", "haproxy", "bulk-down"); !math.IsNaN(got.median) {
		t.Errorf("against a peer without the figure: got %v", got)
	}
}

func TestJudge(t *testing.T) {
	got := map[string]bool{}
	for _, v := range sampleResult().judge("espalier") {
		got[v.what] = v.met
	}
	want := map[string]bool{
		"idle tunnel: user memory KB":                              true,
		"idle tunnel: descriptors":                                 true,
		"idle tunnels: CPU ms/s, all together":                     true,
		"bulk down: CPU s/GB ÷ squid":                              false,
		"open, use, close a tunnel: CPU µs ÷ squid":                true,
		"open, use, close a tunnel: CPU µs ÷ haproxy":              true,
		"plain HTTP, large bodies: CPU s/GB ÷ bulk down: CPU s/GB": true,
	}
	for what, met := range want {
		if m, ok := got[what]; !ok || m != met {
			t.Errorf("%s: judged %v, met %v; want met %v", what, ok, m, met)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
}

func TestGoalsNameFiguresAndPeers(t *testing.T) {
	for _, g := range goals {
		labelOf(g.key)
		if g.other != "" {
			labelOf(g.other)
		}
	}
}
