package report

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// A cell is text without line breaks or control characters.
type cell struct {
	text  string
	as    style
	right bool // aligned so, and with it its column
}

// in makes a cell of anything that fmt.Sprint makes a text of. Numbers go to the right.
func in(as style, v any) cell {
	switch v := v.(type) {
	case int, int64:
		return cell{fmt.Sprint(v), as, true}
	default:
		return cell{fmt.Sprint(v), as, false}
	}
}

// A Table lays cells out in columns as wide as their widest cell. On a terminal
// the last column is cut to what is left of the width. Numbers are aligned to the right.
type Table struct {
	head  []string
	right []bool
	rows  [][]cell
}

// NewTable returns a Table without rows.
func NewTable(head ...string) *Table {
	return &Table{head: head, right: make([]bool, len(head))}
}

// Add adds a row of cells: each a cell, or anything that fmt.Sprint makes a text of.
func (t *Table) Add(cells ...any) {
	row := make([]cell, len(cells))
	for i, v := range cells {
		c, ok := v.(cell)
		if !ok {
			c = in(plain, v)
		}
		row[i], t.right[i] = c, t.right[i] || c.right
	}
	t.rows = append(t.rows, row)
}

const (
	gutter  = 2
	minLast = 10 // a narrower last column would say nothing; lines wrap instead
)

// Write writes the table.
func (t *Table) Write(s Screen) error {
	head := make([]cell, len(t.head))
	for i, h := range t.head {
		head[i] = in(bold, h)
	}
	rows := append([][]cell{head}, t.rows...)
	widths := make([]int, len(head))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	last := len(widths) - 1
	if s.width > 0 {
		rest := s.width
		for _, w := range widths[:last] {
			rest -= w + gutter
		}
		widths[last] = min(widths[last], max(rest, minLast))
	}
	var b strings.Builder
	for _, row := range rows {
		pad := 0 // blanks due before the next text, so that none trail
		for i, c := range row {
			text := cut(c.text, widths[i])
			blanks := widths[i] - utf8.RuneCountInString(text)
			if t.right[i] {
				pad, blanks = pad+blanks, 0
			}
			if text != "" {
				b.WriteString(strings.Repeat(" ", pad) + s.paint(c.as, text))
				pad = 0
			}
			pad += blanks + gutter
		}
		b.WriteByte('\n')
	}
	return s.print(b.String())
}

// without drops the columns that are named.
func (t *Table) without(head ...string) {
	for i := len(t.head) - 1; i >= 0; i-- {
		if !slices.Contains(head, t.head[i]) {
			continue
		}
		t.head, t.right = slices.Delete(t.head, i, i+1), slices.Delete(t.right, i, i+1)
		for k, row := range t.rows {
			t.rows[k] = slices.Delete(row, i, i+1)
		}
	}
}

// cut shortens text to width runes.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:width-1]), " ") + "…"
}
