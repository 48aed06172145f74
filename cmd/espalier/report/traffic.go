package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"espalier/proxy/accesslog"
	"espalier/web/console"
)

// A Traffic is the sums of a time by one dimension, the largest first.
type Traffic struct {
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	By    string    `json:"by"`
	Rows  []Sum     `json:"rows"`
	Total Sum       `json:"total"`
}

// A Sum is the traffic of a name; the empty one are all that are not listed.
type Sum struct {
	Name     string `json:"name"`
	Requests int64  `json:"requests"`
	Errors   int64  `json:"errors"`
	Up       int64  `json:"up"`
	Down     int64  `json:"down"`
}

func newSum(name string, s accesslog.Sum) Sum {
	return Sum{name, s.Requests, s.Errors, s.Up, s.Down}
}

// NewTraffic puts t, the sums by a dimension, in order.
func NewTraffic(t *accesslog.Traffic, by string) *Traffic {
	report := &Traffic{From: t.From, To: t.To, By: by, Rows: []Sum{}, Total: newSum("total", t.Total())}
	for _, r := range t.Rows {
		report.Rows = append(report.Rows, newSum(r.Name, r.Sum))
	}
	slices.SortStableFunc(report.Rows, func(a, b Sum) int {
		if (a.Name == "") != (b.Name == "") { // the others stand last
			return strings.Compare(b.Name, a.Name)
		}
		return cmp.Or(cmp.Compare(b.Up+b.Down, a.Up+a.Down), cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Name, b.Name))
	})
	return report
}

// english writes figures as the console does.
const english = console.Locale("en")

// WriteTraffic makes a table, with bars where there is a terminal.
func WriteTraffic(s Screen, t *Traffic) error {
	if err := s.print(fmt.Sprintf("%s  %s to %s\n\n", s.paint(bold, "Traffic by "+t.By), Local(t.From), Local(t.To))); err != nil {
		return err
	}
	if len(t.Rows) == 0 {
		return s.print("No request has finished in this time.\n")
	}
	tab := NewTable(t.By, "down", "up", "requests", "errors", "share", "")
	add := func(name cell, r Sum, bar string) {
		errors := in(plain, r.Errors)
		if r.Errors > 0 {
			errors.as = yellow
		}
		share := english.Percent(r.Up+r.Down, t.Total.Up+t.Total.Down)
		tab.Add(name, cell{text: english.Size(r.Down), right: true}, cell{text: english.Size(r.Up), right: true}, r.Requests,
			errors, cell{text: share, right: true}, in(green, bar))
	}
	largest := int64(1)
	for _, r := range t.Rows {
		largest = max(largest, r.Up+r.Down)
	}
	room := min(s.width-t.columns(), 40)
	for _, r := range t.Rows {
		name := in(plain, cut(onLine(r.Name), maxName))
		if r.Name == "" {
			name = in(dim, "all others")
		}
		add(name, r, bar(float64(r.Up+r.Down)/float64(largest), room))
	}
	add(in(bold, "total"), t.Total, "")
	if s.width == 0 {
		tab.without("")
	}
	return tab.Write(s)
}

// maxName bounds the first column.
const maxName = 48

// columns is how wide the table is without its bars.
func (t *Traffic) columns() int {
	widths := [6]int{len(t.By), 8, 8, len("requests"), len("errors"), len("> 99.9 %")}
	for _, r := range append(t.Rows, t.Total) {
		widths[0] = max(widths[0], min(len([]rune(r.Name)), maxName), len("all others"))
		widths[3] = max(widths[3], len(strconv.FormatInt(r.Requests, 10)))
	}
	sum := 0
	for _, w := range widths {
		sum += w + gutter
	}
	return sum
}

// bar draws a part of width in eighths of a character; something is never nothing.
func bar(part float64, width int) string {
	if width < 1 || part <= 0 {
		return ""
	}
	eighths := max(int(part*float64(width)*8+0.5), 1)
	b := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		b += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return b
}
