package catalog

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// textParser reads the article as text with one cell a line. Empty cells are
// missing there, so cells are told apart by their shape, and a table's end by
// the text before the next one.
type textParser struct {
	lines []textLine
	// heads are the heads of tables in a language that is not known: their columns
	// by the line that they begin at.
	heads map[int][]column
	// headWords are the lines of all heads.
	headWords map[string]bool
	// mark is the word of the last column in a language that is not known.
	mark string
	// only are words for "only" in such a language.
	only map[string]bool
}

// importCells reads the article as text with one cell a line.
func importCells(s string, known []Row) ([]found, error) {
	var p textParser
	n := 0
	for line := range strings.Lines(s) {
		n++
		for cell := range strings.SplitSeq(line, "\t") {
			if l := newLine(n, cell, false); l.s != "" {
				p.lines = append(p.lines, l)
			}
		}
	}
	p.learn(known)
	return p.rows()
}

// learn finds the heads of tables and the mark of proxy support in a language
// that is not known, by the lines around the rows.
func (p *textParser) learn(known []Row) {
	p.heads, p.headWords = map[int][]column{}, map[string]bool{}
	var starts []int // the first rows of tables
	cell := func(i int) bool {
		s := p.lines[i].s
		return isHost(foldHost(s)) || isNumbers(s) || isTransports(s)
	}
	var rows []int
	for i := range p.lines {
		if i+2 >= len(p.lines) || !isHost(foldHost(p.lines[i].s)) || !isNumbers(p.lines[i+1].s) || !isTransports(p.lines[i+2].s) {
			continue
		}
		rows = append(rows, i)
		// Between two rows are the systems, description and mark of the first.
		from := i
		for from > 0 && !cell(from-1) && i-from < 6 {
			from--
		}
		if n := i - from; n > 3 || n == i && n > 1 {
			starts = append(starts, i)
		}
	}
	systems := slices.ContainsFunc(rows, func(i int) bool { return i+3 < len(p.lines) && isSystems(p.lines[i+3].s) })
	headed := map[int]bool{} // the lines behind a known head
	for i := range p.lines {
		if cols := p.knownHead(i); cols != nil {
			headed[i+len(cols)] = true
			for k := range cols {
				p.headWords[p.lines[i+k].s] = true
			}
		}
	}
	p.learnHeads(slices.DeleteFunc(starts, func(i int) bool { return headed[i] }), systems)
	p.learnMark(rows, known)
	if p.mark != "" {
		p.learnOthers(rows)
	}
}

// learnHeads takes the lines above each of several tables that are the same for
// their heads, above a single one the six nearest.
func (p *textParser) learnHeads(starts []int, systems bool) {
	times := map[string]int{}
	for _, i := range starts {
		for k := max(0, i-6); k < i; k++ {
			times[p.lines[k].s]++
		}
	}
	for _, i := range starts {
		from := i
		for k := i - 1; k >= max(0, i-6); k-- {
			s := p.lines[k].s
			if isParagraph(s) || utf8.RuneCountInString(s) > 40 {
				break
			}
			if len(starts) == 1 || times[s] > 1 && 2*times[s] >= len(starts) {
				from = k
			}
		}
		for k := from; k < i; k++ {
			if containsAny(p.lines[k].s, protocolWords) && k >= 2 {
				from = k - 2
				break
			}
		}
		if n := i - from; n > 1 {
			cols := []column{colHost, colPorts, colTransports, colSystems, colPurpose, colProxy}
			if n == 5 && systems {
				cols = slices.Delete(cols, 4, 5)
			} else if n == 5 {
				cols = slices.Delete(cols, 3, 4)
			}
			cols = cols[:min(n, len(cols))]
			p.heads[from] = cols
			for k := range cols {
				p.headWords[p.lines[from+k].s] = true
			}
		}
	}
}

// learnMark takes the word for the mark that follows most hosts which are marked
// in the catalogue, or else the one that most often follows a description.
func (p *textParser) learnMark(rows []int, known []Row) {
	second := map[string]int{}
	v := newMarkVotes(known)
	for n, i := range rows {
		end := len(p.lines)
		if n+1 < len(rows) {
			end = rows[n+1]
		}
		host := foldHost(p.lines[i].s)
		i += 3
		if i < end && (looksLikeSystems(p.lines[i].s) || isBlank(p.lines[i].s)) {
			i++
		}
		for k := i; k < min(i+2, end); k++ {
			s := p.lines[k].s
			if q, _ := readProxy(s); q == ProxyYes {
				return // the language is known
			}
			if isMarkLike(s) && !p.headWords[s] {
				v.add(host, s)
				if k > i {
					second[s]++
				}
			}
		}
	}
	if p.mark = v.word(); p.mark != "" {
		return
	}
	for s, n := range second {
		if n > 1 && (n > second[p.mark] || n == second[p.mark] && s < p.mark) {
			p.mark = s
		}
	}
}

// learnOthers finds the words beside a single system that mean "only", by the
// descriptions that follow such cells: none follows "macOS updates", which is one.
func (p *textParser) learnOthers(rows []int) {
	all, followed := map[string]int{}, map[string]int{}
	for _, i := range rows {
		i += 3
		if i >= len(p.lines) || !looksLikeSystems(p.lines[i].s) {
			continue
		}
		if names, others, _ := systemWords(p.lines[i].s); len(names) == 1 && len(others) > 0 {
			all[others[0]]++
			end := func(i int) bool { return i >= len(p.lines) || p.isHost(i) || p.lines[i].s == p.mark }
			if !end(i+1) && end(i+2) {
				followed[others[0]]++
			}
		}
	}
	p.only = map[string]bool{}
	for w, n := range followed {
		p.only[w] = n > 1 && 4*n >= all[w]
	}
}

func (p *textParser) rows() ([]found, error) {
	var rows []found
	var above heading
	gap := 0 // the first line behind the last table
	described := true
	for i := 0; i < len(p.lines); {
		cols := p.head(i)
		if cols == nil {
			if err := p.stray(i, gap); err != nil {
				return nil, err
			}
			i++
			continue
		}
		if h := headingIn(p.lines[gap:i]); h.name != "" {
			above = h
		}
		// A description is right above the next heading if the last table has no
		// column for it.
		if _, known := lookupSection(above.name); known && gap > 0 && gap+1 < i && p.lines[gap+1].s == above.name && !described {
			if _, ok := lookupSection(p.lines[gap].s); !ok && len(above.parents) == 1 {
				return nil, p.errorf(gap, "neither a cell of the row above nor a section that is known here")
			}
		}
		described = slices.Contains(cols, colPurpose)
		i += len(cols)
		if i == len(p.lines) || !p.isHost(i) {
			return nil, p.errorf(i, "want a host name below the table's head")
		}
		for i < len(p.lines) && p.isHost(i) {
			var f found
			var err error
			if f, i, err = p.row(i, cols, above); err != nil {
				return nil, err
			}
			rows = append(rows, f)
		}
		if err := p.leftover(i); err != nil {
			return nil, err
		}
		gap = i
	}
	return rows, nil
}

func (p *textParser) isHost(i int) bool { return isHost(foldHost(p.lines[i].s)) }

// errorf is an error at line i, which it quotes; at the end there is none.
func (p *textParser) errorf(i int, format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	if i >= len(p.lines) {
		return fmt.Errorf("line %d: the text ends here: %s", p.lines[len(p.lines)-1].n, msg)
	}
	return fmt.Errorf("line %d: %q: %s", p.lines[i].n, p.lines[i].s, msg)
}

// head returns the columns of the table whose head begins at line i, nil where
// none does. Each is a line.
func (p *textParser) head(i int) []column {
	if cols := p.heads[i]; cols != nil {
		return cols
	}
	return p.knownHead(i)
}

// knownHead is head in a language that is known.
func (p *textParser) knownHead(i int) (cols []column) {
	seen := map[column]bool{}
	for _, l := range p.lines[i:] {
		c, ok := lookupColumn(l.s)
		if !ok && len(cols) >= 4 && containsAny(l.s, proxyWords) && !isParagraph(l.s) {
			c, ok = colProxy, true
		}
		if !ok || seen[c] || len(cols) == 0 && c != colHost {
			break
		}
		seen[c] = true
		cols = append(cols, c)
	}
	if len(cols) < 2 {
		return nil
	}
	// Heads that are not known are between the known ones and the first row.
	first := i + len(cols)
	for n := range 7 - len(cols) {
		if k := first + n; k+1 < len(p.lines) && p.isHost(k) && isNumbers(p.lines[k+1].s) {
			for _, l := range p.lines[first:k] {
				c := colPurpose
				if containsAny(l.s, proxyWords) || seen[c] {
					c = colProxy
				}
				if isParagraph(l.s) || seen[c] {
					return cols
				}
				seen[c] = true
				cols = append(cols, c)
			}
			break
		}
	}
	return cols
}

// stray finds cells outside of a table: a row whose host was not understood,
// or one below a head that was not.
func (p *textParser) stray(i, gap int) error {
	if i+1 < len(p.lines) && p.isHost(i) && isNumbers(p.lines[i+1].s) {
		if gap > 0 && gap < i {
			return p.errorf(gap, "not a cell of the row above, yet the table goes on in line %d", p.lines[i].n)
		}
		return p.errorf(i, "a row without a table's head above it")
	}
	if i > 0 && i+1 < len(p.lines) && isNumbers(p.lines[i].s) && isTransports(p.lines[i+1].s) {
		return p.errorf(i-1, "not a host name, yet ports follow it")
	}
	return nil
}

// leftover finds a cell at line i, behind a table's last row, for which the head
// has no column.
func (p *textParser) leftover(i int) error {
	if i == len(p.lines) {
		return nil
	}
	if err := p.stray(i, i); err != nil {
		return err
	}
	if s := p.lines[i].s; p.isMark(s) || isBlank(s) || isTransports(s) || isNumbers(s) {
		return p.errorf(i, "not a cell of the row above")
	}
	return nil
}

func (p *textParser) isMark(s string) bool { return isMark(s) || s == p.mark }

// isSystems is stricter where the language is known.
func (p *textParser) isSystems(s string) bool {
	if isSystems(s) {
		return true
	}
	names, others, _ := systemWords(s)
	return p.mark != "" && looksLikeSystems(s) && (len(names) > 1 || p.only[others[0]])
}

// row reads the row that begins at line i and returns the line behind it.
func (p *textParser) row(i int, cols []column, above heading) (f found, next int, err error) {
	f.known = p.mark == ""
	f.Host, f.heading, f.at = foldHost(p.lines[i].s), above, fmt.Sprintf("line %d", p.lines[i].n)
	i++
	for _, c := range cols[1:] {
		cell := ""
		if i < len(p.lines) {
			cell = p.lines[i].s
		}
		switch c {
		case colPorts:
			if f.Ports, err = readPorts(cell); err != nil {
				return f, i, p.cellError(i, f.Host, "ports", err)
			}
			i++
		case colTransports:
			if f.Transports, err = readTransports(cell); err != nil {
				return f, i, p.cellError(i, f.Host, "protocol", err)
			}
			i++
		case colSystems:
			if p.isSystems(cell) {
				if f.Systems, err = readSystems(cell); err != nil {
					return f, i, p.cellError(i, f.Host, "OS", err)
				}
				i++
			} else if cell != "" && isBlank(cell) {
				i++
			}
		case colPurpose:
			if cell != "" && isBlank(cell) {
				i++
			} else if p.isPurpose(i, above) {
				f.Purpose = cell
				i++
			}
		case colProxy:
			if cell != "" && (isBlank(cell) || p.isMark(cell) || isPush(f.Host) && p.isLast(i)) {
				f.mark = cell
				i++
			}
		}
	}
	f.finish(cols)
	return f, i, nil
}

// isLast reports whether line i is not a host, and the last line before another
// row or a table.
func (p *textParser) isLast(i int) bool {
	return !p.isHost(i) && (i+1 == len(p.lines) || p.isHost(i+1) || p.head(i+1) != nil)
}

// cellError is about a cell that a row must have.
func (p *textParser) cellError(i int, host, cell string, err error) error {
	if i >= len(p.lines) {
		return p.errorf(i, "%s has no %s", host, cell)
	}
	return fmt.Errorf("line %d: %s: %s: %w", p.lines[i].n, host, cell, err)
}

// isPurpose tells whether line i, where a description may be, is one. At the
// end of a table it may as well be a heading or a paragraph, and headings occur
// as descriptions, too.
func (p *textParser) isPurpose(i int, current heading) bool {
	if i >= len(p.lines) || p.isHost(i) || p.head(i) != nil {
		return false
	}
	s := p.lines[i].s
	if p.isMark(s) || isNumbers(s) || isTransports(s) {
		return false
	}
	if i+1 == len(p.lines) || p.isHost(i+1) || p.isMark(p.lines[i+1].s) || i+2 < len(p.lines) && p.isHost(i+2) {
		return true
	}
	if sec, ok := lookupSection(s); ok {
		now, _ := lookupSection(current.name)
		return sec == now // its own heading does not come again
	}
	if isParagraph(s) {
		return false
	}
	// A heading precedes the next table. Where nothing else can be it, this
	// line is.
	for j := i + 1; j < len(p.lines); j++ {
		if p.head(j) != nil {
			return false
		}
		if s := p.lines[j].s; !isParagraph(s) && !isSystems(s) {
			// Where a paragraph follows this line, and a subheading that, it is
			// the heading above both.
			return j == i+1 || !isParagraph(p.lines[i+1].s)
		}
	}
	return true
}
