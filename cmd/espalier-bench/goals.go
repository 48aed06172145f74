//go:build linux

package main

import (
	"fmt"
	"math"
)

// A goal is a limit that a figure of Espalier is held to: as it stands, or
// divided by a figure of a peer.
type goal struct {
	key     string
	against string // a peer; empty: the figure itself, or another figure of Espalier
	other   string // the other figure where it is not key
	limit   float64
	aim     bool // to reach for; missing it is no failure
}

var goals = []goal{
	{key: "idle-kb", limit: 1},
	{key: "idle-fds", limit: 2.05}, // a few of the proxy's own may come with the load
	{key: "idle-slab", against: "haproxy", limit: 1.1},
	{key: "idle-cpu", limit: 1}, // ms/s: a thousandth of a core counts as none
	{key: "bulk-down", against: "goproxy", limit: 1.1},
	{key: "bulk-down", against: "squid", limit: 0.35},
	{key: "bulk-up", against: "goproxy", limit: 1.1},
	{key: "bulk-up", against: "squid", limit: 0.35},
	{key: "open-us", against: "goproxy", limit: 0.75},
	{key: "open-us", against: "squid", limit: 0.85},
	{key: "open-us", against: "haproxy", limit: 1.3, aim: true},
	{key: "rtt-p50", against: "haproxy", limit: 1.1},
	{key: "rtt-sparse-p50", against: "haproxy", limit: 1.1},
	{key: "rtt-p99", against: "haproxy", limit: 1},
	{key: "rtt-p99", against: "squid", limit: 1},
	{key: "rtt-p99", against: "tinyproxy", limit: 1},
	{key: "rtt-p99", against: "goproxy", limit: 1},
	{key: "http-us", against: "goproxy", limit: 0.6},
	{key: "http-us", against: "forwarder", limit: 1},
	{key: "inspect-us", against: "squid", limit: 0.25},
	{key: "inspect-us", against: "squid-4096", limit: 0.1},
	{key: "inspect-us", limit: 1133}, // a third of what forwarder was measured with elsewhere, 3.4 ms
	{key: "http-bulk", other: "bulk-down", limit: 1.5},
}

// A verdict is what became of a goal.
type verdict struct {
	what     string
	limit    float64
	measured spread
	met, aim bool
}

// judge holds a peer to the goals that the run measured.
func (r *result) judge(peer string) []verdict {
	var out []verdict
	for _, g := range goals {
		v := verdict{what: labelOf(g.key), limit: g.limit, aim: g.aim}
		switch {
		case g.against != "":
			v.measured = r.ratio(peer, g.key, g.against, g.key)
			v.what += " ÷ " + g.against
		case g.other != "":
			v.measured = r.ratio(peer, g.key, peer, g.other)
			v.what += " ÷ " + labelOf(g.other)
		default:
			v.measured = r.of(peer, g.key)
		}
		if math.IsNaN(v.measured.median) {
			continue
		}
		v.met = v.measured.median <= g.limit
		out = append(out, v)
	}
	return out
}

func labelOf(key string) string {
	for _, f := range figures {
		if f.key == key {
			return f.label
		}
	}
	panic(fmt.Sprintf("no figure %q", key))
}
