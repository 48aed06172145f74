// Package report is how commands write what they found out: for people, in colours and as
// wide as a terminal allows, or as JSON.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
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

// A Screen is where output for people goes. The zero width is unlimited.
type Screen struct {
	io.Writer
	width  int
	colour bool
}

// NewScreen looks whether w is a terminal. Colour is off elsewhere, and where
// NO_COLOR is set (https://no-color.org) or the terminal is dumb.
func NewScreen(w io.Writer) Screen {
	s := Screen{Writer: w}
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

// Answer writes v to w: by write for people, or as JSON, where no list is null.
func Answer[T any](w io.Writer, asJSON bool, v T, write func(Screen, T) error) error {
	if !asJSON {
		return write(NewScreen(w), v)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // no page holds it
	enc.SetIndent("", "  ")
	if list := reflect.ValueOf(v); list.Kind() == reflect.Slice && list.IsNil() {
		return enc.Encode([]any{})
	}
	return enc.Encode(v)
}

// JSONLine writes v on a line of its own.
func JSONLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// list is l, and never null in JSON.
func list[T any](l []T) []T { return append([]T{}, l...) }

func (s Screen) paint(as style, text string) string {
	if !s.colour || as == plain || text == "" {
		return text
	}
	return "\x1b[" + string(as) + "m" + text + "\x1b[0m"
}

// print writes text as it is.
func (s Screen) print(text string) error {
	_, err := io.WriteString(s, text)
	return err
}

// Paragraphs writes each text on a line of its own, on a terminal broken between
// words to fit its width.
func (s Screen) Paragraphs(texts ...string) error {
	var b strings.Builder
	for _, text := range texts {
		b.WriteString(strings.Join(s.broken(text, 0), "\n") + "\n")
	}
	return s.print(b.String())
}

// Progress replaces the line on a terminal by text; "" clears it. Elsewhere it writes
// nothing.
func (s Screen) Progress(text string) {
	if s.width > 0 {
		_ = s.print("\r\x1b[K" + cut(text, s.width))
	}
}

// broken breaks text between words to fit a terminal's width less indent.
func (s Screen) broken(text string, indent int) []string {
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

// Lines are lines for a Screen, that are written at once.
type lines struct {
	strings.Builder
	s      Screen
	indent int // before the label of a row
	label  int // the width of labels
}

// row adds a line of a label, a gap of two blanks and a text. On a terminal the text is
// broken between words, and goes on below itself.
func (l *lines) row(label string, as style, text string) {
	rest := l.indent + l.label + 2
	parts := []string{text}
	if l.s.width > 0 && rest+utf8.RuneCountInString(text) > l.s.width {
		parts = l.s.broken(text, rest)
	}
	for _, part := range parts {
		fmt.Fprintf(l, "%*s%s  %s\n", l.indent, "", l.s.paint(dim, fmt.Sprintf("%-*s", l.label, label)), l.s.paint(as, part))
		label = ""
	}
}

// rows adds a line for each text; only the first has the label.
func (l *lines) rows(label string, as style, texts ...string) {
	for _, text := range texts {
		l.row(label, as, text)
		label = ""
	}
}

// text adds lines of text, broken between words.
func (l *lines) text(as style, text string) {
	for _, part := range l.s.broken(text, 0) {
		l.WriteString(l.s.paint(as, part) + "\n")
	}
}

func (l *lines) write() error { return l.s.print(l.String()) }

// plural is "1 row" or "2 rows".
func plural(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return strconv.Itoa(n) + " " + many
}

// Local writes a time as the clock on the wall shows it, and says that there is none.
func Local(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}

func joined[T any](list []T, sep string) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = fmt.Sprint(v)
	}
	return strings.Join(parts, sep)
}

// onLine replaces what a terminal would act on: clients choose hosts and agents.
func onLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
