package main

import (
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// A style is an ANSI "select graphic rendition" parameter; empty is plain.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// A screen is where output for people goes. The zero width is unlimited.
type screen struct {
	io.Writer
	width  int
	colour bool
}

// newScreen looks whether w is a terminal. Colour is off elsewhere, and where
// NO_COLOR is set (https://no-color.org) or the terminal is dumb.
func newScreen(w io.Writer) screen {
	s := screen{Writer: w}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return s
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		s.width = width
	}
	s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return s
}

func (s screen) paint(as style, text string) string {
	if !s.colour || as == plain || text == "" {
		return text
	}
	return "\x1b[" + string(as) + "m" + text + "\x1b[0m"
}

// paragraphs writes each text on a line of its own, on a terminal broken between
// words to fit its width.
func (s screen) paragraphs(texts []string) error {
	var b strings.Builder
	for _, text := range texts {
		b.WriteString(strings.Join(s.broken(text, 0), "\n") + "\n")
	}
	_, err := io.WriteString(s, b.String())
	return err
}

// broken breaks text between words to fit a terminal's width less indent.
func (s screen) broken(text string, indent int) []string {
	lines := []string{""}
	n := 0
	for _, word := range strings.Fields(text) {
		last := len(lines) - 1
		w := utf8.RuneCountInString(word)
		switch {
		case n == 0:
			lines[last], n = word, w
		case s.width > 0 && indent+n+1+w > s.width:
			lines, n = append(lines, word), w
		default:
			lines[last] += " " + word
			n += 1 + w
		}
	}
	return lines
}

// A cell is text without line breaks or control characters.
type cell struct {
	text string
	as   style
}

// A table lays cells out in columns as wide as their widest cell. On a terminal
// the last column is cut to what is left of the width.
type table struct {
	head  []string
	right []int // columns aligned to the right
	rows  [][]cell
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

const (
	gutter  = 2
	minLast = 10 // a narrower last column would say nothing; lines wrap instead
)

func (t *table) write(s screen) error {
	head := make([]cell, len(t.head))
	for i, h := range t.head {
		head[i] = cell{h, bold}
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
			if slices.Contains(t.right, i) {
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
	_, err := io.WriteString(s, b.String())
	return err
}

// cut shortens text to width runes.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:width-1]), " ") + "…"
}
