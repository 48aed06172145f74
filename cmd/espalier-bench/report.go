//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// A grid is a table with a heading; the first row holds the column names.
type grid struct {
	title string
	rows  [][]string
}

// report writes what the run found out, for a terminal or as markdown. The
// subject is the peer whose ratios to the others are shown.
func (r *result) report(w io.Writer, subject string, markdown bool) error {
	var b strings.Builder
	for _, line := range r.terms() {
		if markdown {
			b.WriteString("- ")
		}
		b.WriteString(line + "\n")
	}
	for _, g := range r.grids(subject) {
		if len(g.rows) < 2 {
			continue
		}
		if markdown {
			g.markdown(&b)
		} else {
			g.text(&b)
		}
	}
	if failed := r.errors(); len(failed) > 0 {
		b.WriteString("\nFailed:\n\n")
		for _, line := range failed {
			b.WriteString("- " + strings.ReplaceAll(line, "\n", "\n  ") + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// terms say where, when and how it was measured.
func (r *result) terms() []string {
	m, t := r.Machine, r.Terms
	rounds := fmt.Sprintf("%d rounds", t.Rounds)
	if t.Rounds == 1 {
		rounds = "1 round"
	}
	lines := []string{
		fmt.Sprintf("%s: %s, %d cores, %.0f GB, Linux %s, Go %s", r.Date.Format("2 January 2006"), m.CPU, m.Cores, float64(m.Memory)/(1<<30), m.Kernel, m.Go),
		fmt.Sprintf("medians (smallest to largest) of %s, peers in shuffled order within each; CPU and memory of the proxy alone; %d clients at a time, %d bulk streams, %d descriptors allowed",
			rounds, t.Concurrency, t.Streams, t.Files),
	}
	if t.Awake {
		lines = append(lines, "cores kept from halting by loops that yield to anything")
	}
	if m.Load >= 0.5 {
		lines = append(lines, fmt.Sprintf("the machine was busy before: load average %.1f", m.Load))
	}
	if r.Stolen >= 0.005 {
		lines = append(lines, fmt.Sprintf("the host took %.0f %% of the cores' time meanwhile", 100*r.Stolen))
	}
	var special []string
	if t.User != "" {
		special = append(special, "as user "+t.User)
	}
	if t.Beside > 0 {
		special = append(special, fmt.Sprintf("with %d idle tunnels open", t.Beside))
	}
	if len(special) > 0 {
		lines = append(lines, "every proxy "+strings.Join(special, ", "))
	}
	for _, p := range r.Peers {
		lines = append(lines, fmt.Sprintf("%s %s: %s", p.Name, p.Version, p.Note))
	}
	return append(lines, r.Skipped...)
}

func (r *result) grids(subject string) []grid {
	var names []string
	for _, p := range r.Peers {
		if r.has(p.Name) {
			names = append(names, p.Name)
		}
	}
	all := grid{title: "Figures", rows: [][]string{append([]string{""}, names...)}}
	ratios := grid{title: "Ratios: " + subject + " ÷ peer", rows: [][]string{{""}}}
	for _, n := range names {
		if n != subject {
			ratios.rows[0] = append(ratios.rows[0], n)
		}
	}
	for _, f := range figures {
		row, ratio := []string{f.label}, []string{f.label}
		any, both := false, false
		for _, n := range names {
			s := r.of(n, f.key)
			any = any || !math.IsNaN(s.median)
			row = append(row, s.format(f.digits))
			if n != subject {
				q := r.ratio(subject, f.key, n, f.key)
				both = both || !math.IsNaN(q.median)
				ratio = append(ratio, q.format(2))
			}
		}
		if any {
			all.rows = append(all.rows, row)
		}
		if both && f.key != "idle-tunnels" && f.key != "idle-cpu" { // a quotient of next to nothing says nothing
			ratios.rows = append(ratios.rows, ratio)
		}
	}
	grids := []grid{all, ratios}
	if subject == "espalier" {
		held := grid{title: "Goals", rows: [][]string{{"", "at most", "measured", ""}}}
		for _, v := range r.judge(subject) {
			held.rows = append(held.rows, []string{v.what, fmt.Sprint(v.limit), v.measured.format(2), v.word()})
		}
		grids = append(grids, held)
	}
	return grids
}

func (v verdict) word() string {
	switch {
	case v.met:
		return "met"
	case v.aim:
		return "not reached"
	default:
		return "MISSED"
	}
}

// format writes the median and, where there is a spread, its ends.
func (s spread) format(digits int) string {
	if math.IsNaN(s.median) {
		return "–"
	}
	if s.min == s.max {
		return fmt.Sprintf("%.*f", digits, s.median)
	}
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, s.median, digits, s.min, digits, s.max)
}

func (g grid) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n%s:\n\n", g.title)
	for i, row := range g.rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|---" + strings.Repeat("|--:", len(row)-1) + "|\n")
		}
	}
}

func (g grid) text(b *strings.Builder) {
	width := make([]int, len(g.rows[0]))
	for _, row := range g.rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	fmt.Fprintf(b, "\n%s\n", g.title)
	for _, row := range g.rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString(cell + pad)
			} else {
				line.WriteString("  " + pad + cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
