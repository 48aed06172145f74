package catalog

import (
	"fmt"
	"html"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// A textLine is a line that is not empty.
type textLine struct {
	n int // from 1
	s string
	// level is that of a Markdown heading, 0 for another line.
	level int
}

// importText reads the article as text: one cell a line, or tables in Markdown,
// with tabs, or with spaces between their cells.
func importText(s string, known []Row) ([]found, error) {
	rule := markdownRule.FindString(s)
	marked, bars := rule != "", strings.HasPrefix(strings.TrimSpace(rule), "|")
	and, only := listWords(s)
	var lines []textLine
	var grids []grid
	var ends []int // for each grid, how many of lines precede it
	n := 0
	for line := range strings.Lines(s) {
		n++
		line = strings.TrimRight(line, "\r\n")
		cells, fixed := splitRow(line, marked, bars), false
		if cells == nil {
			cells, fixed = spacedCells(line, and, only), true
		}
		switch {
		case cells != nil:
			if k := len(ends); k == 0 || ends[k-1] != len(lines) || grids[k-1].fixed != fixed {
				grids, ends = append(grids, grid{fixed: fixed}), append(ends, len(lines))
			}
			g := &grids[len(grids)-1]
			g.rows = append(g.rows, gridRow{at: fmt.Sprintf("line %d", n), cells: cells})
		case marked && underline.MatchString(line):
			// A line below a heading, or between two parts.
			if k := len(lines) - 1; k >= 0 && lines[k].n == n-1 && lines[k].level == 0 && !isParagraph(lines[k].s) {
				lines[k].level = 2
				if strings.Contains(line, "=") {
					lines[k].level = 1
				}
			}
		case marked && markdownRule.MatchString(line):
		default:
			// Tables copied from a browser have tabs around their cells.
			for cell := range strings.SplitSeq(line, "\t") {
				if l := newLine(n, cell, marked); l.s != "" {
					lines = append(lines, l)
				}
			}
		}
	}
	if !slices.ContainsFunc(grids, func(g grid) bool {
		return slices.ContainsFunc(g.rows, func(r gridRow) bool { return r.isData() })
	}) {
		return importCells(s, known)
	}
	return importGrids(lines, grids, ends, known)
}

// markdownRule matches the line below the head of a Markdown table.
var markdownRule = regexp.MustCompile(`(?m)^\s*(?:\|\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?|:?-+:?\s*(?:\|\s*:?-+:?\s*)+\|?)\s*$`)

var (
	underline  = regexp.MustCompile(`^\s*(?:=+|-{3,})\s*$`)
	hashes     = regexp.MustCompile(`^\s*(#{1,6})\s+(.*?)\s*#*\s*$`)
	emphasis   = regexp.MustCompile(`^\s*(?:\*\*|__)([^*_]+)(?:\*\*|__):?\s*$`)
	link       = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
	escaped    = regexp.MustCompile(`\\([!-/:-@\[-` + "`" + `{-~])`)
	lineBreak  = regexp.MustCompile(`(?i)<br\s*/?>`)
	footnote   = regexp.MustCompile(`\[\^[^\]]*\]`)
	strongText = regexp.MustCompile(`\*\*|__`)
	wideSpace  = regexp.MustCompile(`\s{2,}`)
)

func newLine(n int, s string, marked bool) textLine {
	l := textLine{n: n, s: s}
	if marked {
		if m := hashes.FindStringSubmatch(s); m != nil {
			l.level, l.s = len(m[1]), m[2]
		} else if m := emphasis.FindStringSubmatch(s); m != nil {
			l.level, l.s = 7, m[1]
		}
		l.s = plainText(l.s)
	}
	l.s = clean(l.s)
	return l
}

// plainText is the text of Markdown as it shows.
func plainText(s string) string {
	s = footnote.ReplaceAllString(s, "")
	s = link.ReplaceAllString(s, "$1")
	s = lineBreak.ReplaceAllString(s, " ")
	s = strongText.ReplaceAllString(s, "")
	s = escaped.ReplaceAllString(s, "$1")
	return html.UnescapeString(strings.ReplaceAll(s, "`", ""))
}

// splitRow returns the cells of a line in Markdown or with tabs that is a row of
// a table, or its head; nil where it is another line.
func splitRow(line string, marked, bars bool) []string {
	if marked && strings.Contains(line, "|") {
		if markdownRule.MatchString(line) {
			return nil
		}
		return markdownCells(line, bars)
	}
	if cells := strings.Split(line, "\t"); len(cells) > 1 {
		n := 0
		for i, c := range cells {
			if c = clean(c); len(c) > 1 && strings.HasPrefix(c, `"`) && strings.HasSuffix(c, `"`) {
				c = strings.TrimSpace(strings.ReplaceAll(c[1:len(c)-1], `""`, `"`)) // a spreadsheet's
			}
			if cells[i] = c; c != "" {
				n++
			}
		}
		if n > 1 {
			return cells
		}
	}
	return nil
}

// markdownCells cuts a row at its bars. With bars those at its ends are
// decoration, without them an empty cell may come before the first.
func markdownCells(line string, bars bool) (cells []string) {
	if line = strings.TrimSpace(line); bars {
		line = strings.TrimPrefix(line, "|")
	}
	var cell strings.Builder
	end := func() {
		cells = append(cells, clean(plainText(cell.String())))
		cell.Reset()
	}
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '\\' && i+1 < len(line) && line[i+1] == '|':
			cell.WriteByte('|')
			i++
		case line[i] == '|':
			end()
		default:
			cell.WriteByte(line[i])
		}
	}
	if strings.TrimSpace(cell.String()) != "" || !bars {
		end()
	}
	return cells
}

// spacedCells reads a line that has a whole row, or the head of a table, with
// spaces between its cells. Empty cells may be missing, so those of a row are
// told by their shape. The last cells of the result are the description and the
// mark together, which only several rows can tell apart.
func spacedCells(line string, and, only map[string]bool) []string {
	words := strings.Fields(clean(line))
	if len(words) < 3 || !isHost(foldHost(words[0])) {
		return nil
	}
	ports, rest := longest(words[1:], isNumbers)
	transports, rest := longest(rest, isTransports)
	if ports == "" || transports == "" {
		return nil
	}
	systems, rest := spacedSystems(rest, and, only)
	// The columns of a row with two spaces or more between them are known.
	text := strings.Join(rest, " ")
	if parts := wideSpace.Split(strings.TrimSpace(line), -1); len(parts) >= 4 && len(rest) > 0 {
		if last := clean(parts[len(parts)-1]); last != text && strings.HasSuffix(text, " "+last) {
			return []string{words[0], ports, transports, systems, strings.TrimSuffix(text, " "+last), last}
		}
	}
	return []string{words[0], ports, transports, systems, text, unsplit}
}

// unsplit is the last cell of a row whose description may end with the mark.
const unsplit = "\x00"

// longest returns the longest beginning of words that is a cell, and what is
// left.
func longest(words []string, is func(string) bool) (string, []string) {
	for n := min(len(words), 12); n > 0; n-- {
		if s := strings.Join(words[:n], " "); is(s) && !andWords[strings.ToLower(words[n-1])] {
			return s, words[n:]
		}
	}
	return "", words
}

// listWords finds the words in text that are "and" between the names of systems,
// or "only" in front of one, in a language that may not be known.
func listWords(text string) (and, only map[string]bool) {
	and, only = maps.Clone(andWords), maps.Clone(onlyWords)
	ands, onlies := map[string]int{}, map[string]int{}
	for _, m := range andInList.FindAllStringSubmatch(text, -1) {
		ands[strings.ToLower(m[1])]++
	}
	for _, m := range onlyInList.FindAllStringSubmatch(text, -1) {
		onlies[strings.ToLower(m[1])]++
	}
	for w, n := range ands {
		and[w] = and[w] || n > 1 && !hasSystem(w)
	}
	for w, n := range onlies {
		only[w] = only[w] || n > 1 && !hasSystem(w)
	}
	return and, only
}

func hasSystem(s string) bool {
	names, _, _ := systemWords(s)
	return len(names) > 0
}

var (
	andInList  = regexp.MustCompile(`\b\pL*OS, ?\pL*OS,? (\pL{1,12}) \pL*OS\b`)
	onlyInList = regexp.MustCompile(`(?:TCP|UDP) +(\pL{1,12}) \pL*OS\b`)
)

// spacedSystems returns the systems that words begin with. "macOS macOS updates"
// begins with one: a comma or "and" precedes another.
func spacedSystems(words []string, and, only map[string]bool) (string, []string) {
	if len(words) > 0 && isBlank(words[0]) {
		return "", words[1:]
	}
	at := func(i int, set map[string]bool) bool { return i < len(words) && set[strings.ToLower(words[i])] }
	n, more := 0, true
	if at(0, only) {
		n++
	}
	var names []string
	for more && n < len(words) && isSystems(words[n]) {
		names = append(names, words[n])
		more = strings.HasSuffix(words[n], ",") || strings.HasSuffix(words[n], "、")
		n++
		if at(n, and) && n+1 < len(words) && isSystems(words[n+1]) {
			n, more = n+1, true
		}
	}
	if names == nil {
		return "", words
	}
	if at(n, only) {
		n++
	}
	return strings.Join(names, " "), words[n:]
}

// importGrids reads tables and the lines above them.
func importGrids(lines []textLine, grids []grid, ends []int, known []Row) ([]found, error) {
	splitMarks(grids, known)
	// A head with spaces between its cells is a line above the table, the same
	// above each.
	heads := map[string]int{}
	for i := range grids {
		if k := ends[i] - 1; k >= 0 {
			heads[lines[k].s]++
		}
	}
	var above outline
	var before heading
	leveled := slices.ContainsFunc(lines, func(l textLine) bool { return l.level > 0 })
	for i := range grids {
		start := 0
		if i > 0 {
			start = ends[i-1]
		}
		gap := lines[start:ends[i]]
		for k := range gap {
			if k+1 < len(gap) && isHost(foldHost(gap[k].s)) && isNumbers(gap[k+1].s) {
				return nil, fmt.Errorf("line %d: %q: a row without a table's head above it", gap[k].n, gap[k].s)
			}
		}
		if n := len(gap); n > 0 && gap[n-1].level == 0 && (heads[gap[n-1].s] > 1 || isHead(gap[n-1].s)) {
			gap = gap[:n-1]
		}
		if leveled {
			for _, l := range gap {
				if l.level > 0 && !isSystems(l.s) {
					above.add(l.level, l.s)
				}
			}
			grids[i].heading = above.heading()
		} else if h := headingIn(gap); h.name != "" {
			grids[i].heading = h
		} else {
			grids[i].heading = before
		}
		before = grids[i].heading
	}
	return readGrids(grids, known)
}

// isHead reports whether a line has the heads of a table's columns, in a language
// that is known.
func isHead(s string) bool {
	n := 0
	words := strings.Fields(s)
	for len(words) > 0 {
		k := min(len(words), 3)
		for ; k > 1; k-- {
			if _, ok := lookupColumn(strings.Join(words[:k], " ")); ok {
				break
			}
		}
		if _, ok := lookupColumn(strings.Join(words[:k], " ")); ok {
			n++
		}
		words = words[k:]
	}
	return n >= 3 || n == 2 && containsAny(s, protocolWords)
}

// headingIn returns the last headings of lines, paragraphs and lists of systems
// aside.
func headingIn(lines []textLine) (h heading) {
	h.loose = true
	for _, l := range slices.Backward(lines) {
		switch {
		case isParagraph(l.s) || isSystems(l.s):
		case h.name == "":
			h.name = l.s
		case len(h.parents) < 8:
			h.parents = append(h.parents, l.s)
		default:
			return h
		}
	}
	return h
}

// isParagraph tells sentences and list items from headings and cells.
func isParagraph(s string) bool {
	return strings.HasPrefix(s, "•") || utf8.RuneCountInString(s) > 120 || strings.HasSuffix(s, ".") || strings.HasSuffix(s, ":") ||
		strings.HasSuffix(s, "。") || strings.HasSuffix(s, "：") || strings.HasSuffix(s, "؟") || strings.HasSuffix(s, "।")
}

// splitMarks cuts the mark off the descriptions of rows with spaces between their
// cells: a word of a language that is known, or the one that ends most rows of
// hosts which are marked in the catalogue, or one that some rows have alone.
func splitMarks(grids []grid, known []Row) {
	var rows []*gridRow
	last, alone := map[string]int{}, map[string]int{}
	v := newMarkVotes(known)
	for i := range grids {
		for k := range grids[i].rows {
			r := &grids[i].rows[k]
			if !grids[i].fixed {
				continue
			}
			w := r.cells[5]
			if w == unsplit {
				rows = append(rows, r)
				words := strings.Fields(r.cells[4])
				if len(words) == 0 {
					continue
				}
				if w = words[len(words)-1]; len(words) == 1 {
					alone[w]++
				}
			}
			last[w]++
			v.add(foldHost(r.cells[0]), w)
		}
	}
	foreign := v.word() // the mark of a language that is not known
	if foreign == "" {
		for w, n := range last {
			if alone[w] > 0 && n > alone[w] && n >= 3 && (n > last[foreign] || n == last[foreign] && w < foreign) {
				foreign = w
			}
		}
	}
	for w := range last {
		if p, _ := readProxy(w); p == ProxyYes {
			foreign = ""
		}
	}
	for _, r := range rows {
		text := r.cells[4]
		r.cells[5] = ""
		if i := strings.Index(text, "APN"); i >= 0 && isPush(foldHost(r.cells[0])) {
			r.cells[4], r.cells[5] = strings.TrimSpace(text[:i]), text[i:]
			continue
		}
		words := strings.Fields(text)
		for n := min(len(words), 12); n > 0; n-- {
			tail := strings.Join(words[len(words)-n:], " ")
			if n == 1 && (isMark(tail) || isBlank(tail) || tail == foreign) || n > 1 && isPush(foldHost(r.cells[0])) && isMark(tail) {
				r.cells[4], r.cells[5] = strings.Join(words[:len(words)-n], " "), tail
				break
			}
		}
	}
}
