package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"espalier/policy"
	"espalier/proxy/accesslog"
)

// Records writes access records one by one. Flush follows the last.
type Records struct {
	Write func(*accesslog.Record) error
	Flush func() error
}

// NewRecords returns Records that write to w: JSON, a line each, CSV, or lines for people.
func NewRecords(w io.Writer, asJSON, asCSV bool) Records {
	none := func() error { return nil }
	switch {
	case asJSON:
		return Records{func(r *accesslog.Record) error { return JSONLine(w, r) }, none}
	case asCSV:
		csv := accesslog.NewCSVWriter(w)
		return Records{csv.Write, csv.Flush}
	}
	l := &recordLines{s: NewScreen(w)}
	return Records{l.record, none}
}

// recordLines writes a line for each record, in columns of fixed width, so that those that
// come later fit below. The last one is never cut: it may be what matters.
type recordLines struct {
	s     Screen
	begun bool
}

var recordColumns = []struct {
	name  string
	width int
	right bool
	least int // the width of a terminal from which it is shown
}{
	{name: "TIME", width: 14}, {name: "CLIENT", width: 15}, {name: "ACTION", width: 9}, {name: "CODE", width: 4, right: true},
	{name: "BYTES", width: 7, right: true}, {name: "TOOK", width: 6, right: true, least: 90}, {name: "SERVICE", width: 15, least: 110},
	{name: "DESTINATION"}, {},
}

var actionStyles = map[policy.Action]style{
	policy.Tunnel: green, policy.Forward: green, policy.Inspect: plain,
	policy.Deny: yellow, policy.Challenge: yellow, policy.Error: red,
}

func (l *recordLines) record(r *accesslog.Record) error {
	if !l.begun {
		l.begun = true
		var head []cell
		for _, c := range recordColumns {
			head = append(head, in(bold, c.name))
		}
		if err := l.line(head); err != nil {
			return err
		}
	}
	client := ""
	if r.Client.IsValid() {
		client = r.Client.String()
	}
	to, why := destination(r)
	return l.line([]cell{
		in(dim, r.Time.Local().Format("01-02 15:04:05")), in(plain, client), in(actionStyles[r.Action], r.Action), in(plain, r.Status),
		in(plain, english.Size(r.Up+r.Down)), in(plain, took(r.Duration)), in(plain, r.Service), in(plain, to), why,
	})
}

// destination is where a record went, and what else there is to say of it.
func destination(r *accesslog.Record) (to string, why cell) {
	to = r.URL
	if to == "" {
		to = r.Host
		if strings.Contains(to, ":") {
			to = "[" + to + "]"
		}
		to += ":" + strconv.Itoa(int(r.Port))
	}
	if r.User != "" {
		to += " by " + r.User
	}
	switch {
	case r.Error != "":
		return to, in(red, r.Error)
	case !slices.Contains([]string{policy.RuleApple, policy.RuleDefault, policy.RuleAuth}, r.Rule):
		return to, in(dim, "rule "+r.Rule)
	}
	return to, cell{}
}

// line writes the cells of recordColumns.
func (l *recordLines) line(cells []cell) error {
	var b strings.Builder
	for i, c := range cells {
		column := recordColumns[i]
		if l.s.width > 0 && l.s.width < column.least {
			continue
		}
		text := onLine(c.text)
		blanks := strings.Repeat(" ", max(column.width-utf8.RuneCountInString(text), 0))
		if column.right {
			b.WriteString(blanks + l.s.paint(c.as, text))
		} else {
			b.WriteString(l.s.paint(c.as, text) + blanks)
		}
		b.WriteString("  ")
	}
	return l.s.print(strings.TrimRight(b.String(), " ") + "\n")
}

// took writes a duration in six characters.
func took(d time.Duration) string {
	for _, unit := range []struct {
		below  time.Duration
		format string
		of     float64
	}{
		{time.Second, "%.0fms", 1e6}, {10 * time.Second, "%.1fs", 1e9}, {10 * time.Minute, "%.0fs", 1e9},
		{10 * time.Hour, "%.0fm", 60e9}, {10 * 24 * time.Hour, "%.0fh", 3600e9},
	} {
		if d < unit.below {
			return fmt.Sprintf(unit.format, float64(d)/unit.of)
		}
	}
	return fmt.Sprintf("%.0fd", d.Hours()/24)
}
