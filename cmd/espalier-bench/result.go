//go:build linux

package main

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// result is everything a run found out, as -json writes it.
type result struct {
	Date    time.Time  `json:"date"`
	Machine machine    `json:"machine"`
	Terms   terms      `json:"terms"`
	Peers   []peerInfo `json:"peers"`
	Skipped []string   `json:"skipped,omitempty"`
	Stolen  float64    `json:"stolen"` // share of the cores' time that the host took
	Samples []sample   `json:"samples"`
}

// terms are the conditions that figures depend on.
type terms struct {
	Rounds      int     `json:"rounds"`
	Window      float64 `json:"window_s"`
	Opens       int     `json:"opens"`
	Concurrency int     `json:"concurrency"`
	Streams     int     `json:"streams"`
	Beside      int     `json:"idle_beside"`
	User        string  `json:"user,omitempty"`
	Files       int     `json:"nofile"`
	Awake       bool    `json:"cores_awake"`
}

type peerInfo struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Note    string `json:"note"`
}

type sample struct {
	Round    int    `json:"round"`
	Scenario string `json:"scenario"`
	Peer     string `json:"peer"`
	Values   values `json:"values,omitempty"`
	Err      string `json:"error,omitempty"`
}

type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory_bytes"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	// Load is the load average of the last minute when the run began: what
	// else the machine was doing.
	Load float64 `json:"load"`
}

func thisMachine(fs procfs) machine {
	m := machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU(), Go: strings.TrimPrefix(runtime.Version(), "go")}
	m.Memory, _ = fs.kilobytes(string(fs)+"/meminfo", "MemTotal")
	if b, err := os.ReadFile(string(fs) + "/cpuinfo"); err == nil {
		if name := cpuModel(string(b)); name != "" {
			m.CPU = name
		}
	}
	if b, err := os.ReadFile(string(fs) + "/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(b), " ")
		m.Load, _ = strconv.ParseFloat(first, 64)
	}
	var u syscall.Utsname
	if syscall.Uname(&u) == nil {
		for _, c := range u.Release {
			if c == 0 {
				break
			}
			m.Kernel += string(rune(c))
		}
	}
	return m
}

// cpuModel is the first "model name" of /proc/cpuinfo; not every architecture
// has one.
func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// of is a figure of a peer over the rounds.
func (r *result) of(peer, key string) spread {
	var v []float64
	for _, s := range r.Samples {
		if x, ok := s.Values[key]; ok && s.Peer == peer {
			v = append(v, x)
		}
	}
	return spreadOf(v)
}

// ratio divides a figure of one peer by a figure of another, round by round,
// so that what the machine did in the meantime cancels out.
func (r *result) ratio(peer, key, against, againstKey string) spread {
	over := map[int]float64{}
	for _, s := range r.Samples {
		if x, ok := s.Values[againstKey]; ok && s.Peer == against && x != 0 {
			over[s.Round] = x
		}
	}
	var v []float64
	for _, s := range r.Samples {
		x, ok := s.Values[key]
		if y, both := over[s.Round]; ok && both && s.Peer == peer {
			v = append(v, x/y)
		}
	}
	return spreadOf(v)
}

// has says whether any sample of the peer succeeded.
func (r *result) has(peer string) bool {
	return slices.ContainsFunc(r.Samples, func(s sample) bool { return s.Peer == peer && s.Err == "" })
}

// errors lists what failed, once each.
func (r *result) errors() []string {
	var out []string
	for _, s := range r.Samples {
		if s.Err == "" {
			continue
		}
		if line := s.Peer + ", " + s.Scenario + ": " + s.Err; !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}
