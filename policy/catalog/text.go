package catalog

import (
	"fmt"
	"strings"
)

// A textLine is a line that is not empty.
type textLine struct {
	n int // from 1
	s string
}

// textParser reads the article as text. There every cell is a line and empty
// cells are missing, so cells are told apart by their shape, and what ends a
// table is told by what stands before the next one.
type textParser struct {
	lines  []textLine
	source string
}

func importText(s string) ([]Row, error) {
	var p textParser
	n := 0
	for line := range strings.Lines(s) {
		n++
		// Tables copied from a browser have tabs between their cells.
		for cell := range strings.SplitSeq(line, "\t") {
			if cell = clean(cell); cell != "" {
				p.lines = append(p.lines, textLine{n, cell})
			}
		}
	}
	p.source = edition(clean(s))
	return p.rows()
}

func (p *textParser) rows() ([]Row, error) {
	var rows []Row
	var sec section
	gap := 0 // where what stands between the last table and the next begins
	for i := 0; i < len(p.lines); {
		cols := p.header(i)
		if cols == nil {
			if err := p.stray(i, gap); err != nil {
				return nil, err
			}
			i++
			continue
		}
		var err error
		if sec, err = p.section(gap, i, sec); err != nil {
			return nil, err
		}
		i += len(cols)
		if i == len(p.lines) || !isHost(p.lines[i].s) {
			return nil, p.errorf(i, "want a host name below the table's head")
		}
		for i < len(p.lines) && isHost(p.lines[i].s) {
			var r Row
			if r, i, err = p.row(i, cols, sec); err != nil {
				return nil, err
			}
			rows = append(rows, r)
		}
		if err := p.leftover(i); err != nil {
			return nil, err
		}
		gap = i
	}
	if rows == nil {
		return nil, errNoTable
	}
	return rows, nil
}

// errorf is an error at line i, which it quotes; at the end there is none.
func (p *textParser) errorf(i int, format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	if i >= len(p.lines) {
		return fmt.Errorf("line %d: the text ends here: %s", p.lines[len(p.lines)-1].n, msg)
	}
	return fmt.Errorf("line %d: %q: %s", p.lines[i].n, p.lines[i].s, msg)
}

// header returns the columns of the table whose head begins at line i, nil
// where none does. Each is a line.
func (p *textParser) header(i int) (cols []column) {
	seen := map[column]bool{}
	for _, l := range p.lines[i:] {
		c, ok := lookupColumn(l.s)
		if !ok || seen[c] || len(cols) == 0 && c != colHost {
			break
		}
		seen[c] = true
		cols = append(cols, c)
	}
	if len(cols) < 2 {
		return nil
	}
	return cols
}

// stray finds cells outside of a table: a row whose host was not understood,
// or one below a head that was not.
func (p *textParser) stray(i, gap int) error {
	if i+1 < len(p.lines) && isHost(p.lines[i].s) && isNumbers(p.lines[i+1].s) {
		if gap > 0 && gap < i {
			return p.errorf(gap, "not a cell of the row above, yet the table goes on in line %d", p.lines[i].n)
		}
		return p.errorf(i, "a row without a table's head above it")
	}
	if i > 0 && i+1 < len(p.lines) && isNumbers(p.lines[i].s) {
		if _, err := readTransports(p.lines[i+1].s); err == nil {
			return p.errorf(i-1, "not a host name, yet ports follow it")
		}
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
	_, err := readTransports(p.lines[i].s)
	_, ok := readProxy(p.lines[i].s)
	if ok || err == nil || isNumbers(p.lines[i].s) {
		return p.errorf(i, "not a cell of the row above")
	}
	return nil
}

// section finds the section of the table whose head is at line head: the
// nearest heading between it and the table before, which ended at line gap. A
// table without one goes on with the section before. Paragraphs and lists of
// systems are no headings.
func (p *textParser) section(gap, head int, before section) (section, error) {
	for i := head - 1; i >= gap; i-- {
		s := p.lines[i].s
		if isParagraph(s) || isSystems(s) {
			continue
		}
		if sec, ok := lookupSection(s); ok && sec.service != "" {
			return sec, p.known(gap, i)
		}
		return section{}, p.errorf(i, "not a section that is known here, yet a table stands below it")
	}
	if before.service == "" {
		return section{}, p.errorf(head, "a table without a section's heading above it")
	}
	return before, nil
}

// known refuses a line behind a table's last row, which ended at line gap, that
// is neither a cell nor anything else that stands before the heading at line i.
func (p *textParser) known(gap, i int) error {
	if gap == 0 || gap == i {
		return nil
	}
	s := p.lines[gap].s
	if _, ok := lookupSection(s); ok || isParagraph(s) || isSystems(s) {
		return nil
	}
	return p.errorf(gap, "neither a cell of the row above nor a section that is known here")
}

// isParagraph tells sentences and list items from headings and cells.
func isParagraph(s string) bool {
	return strings.HasPrefix(s, "•") || strings.HasSuffix(s, ".") || strings.HasSuffix(s, ":") || len(s) > 200
}

// row reads the row that begins at line i and returns the line behind it.
func (p *textParser) row(i int, cols []column, sec section) (r Row, next int, err error) {
	r.Host = p.lines[i].s
	i++
	for _, c := range cols[1:] {
		cell := ""
		if i < len(p.lines) {
			cell = p.lines[i].s
		}
		switch c {
		case colPorts:
			if r.Ports, err = readPorts(cell); err != nil {
				return r, i, p.cellError(i, r.Host, "ports", err)
			}
			i++
		case colTransports:
			if r.Transports, err = readTransports(cell); err != nil {
				return r, i, p.cellError(i, r.Host, "protocol", err)
			}
			i++
		case colSystems:
			if isSystems(cell) {
				if r.Systems, err = readSystems(cell); err != nil {
					return r, i, p.cellError(i, r.Host, "OS", err)
				}
				i++
			} else if cell != "" && isBlank(cell) {
				i++
			}
		case colPurpose:
			if cell != "" && isBlank(cell) {
				i++
			} else if p.isPurpose(i, sec) {
				r.Purpose = cell
				i++
			}
		case colProxy:
			if proxy, ok := readProxy(cell); ok && cell != "" {
				r.Proxy = proxy
				i++
			}
		}
	}
	finish(&r, cols, sec, p.source)
	return r, i, nil
}

// cellError is about a cell that a row must have.
func (p *textParser) cellError(i int, host, cell string, err error) error {
	if i >= len(p.lines) {
		return p.errorf(i, "%s has no %s", host, cell)
	}
	return fmt.Errorf("line %d: %s: %s: %w", p.lines[i].n, host, cell, err)
}

// isPurpose tells whether line i, where a description may stand, is one. At the
// end of a table it may as well be a heading or a paragraph, and headings occur
// as descriptions, too.
func (p *textParser) isPurpose(i int, current section) bool {
	if i >= len(p.lines) || isHost(p.lines[i].s) || p.header(i) != nil {
		return false
	}
	s := p.lines[i].s
	if _, ok := readProxy(s); ok || isNumbers(s) {
		return false
	}
	if _, err := readTransports(s); err == nil {
		return false
	}
	if i+1 == len(p.lines) || isHost(p.lines[i+1].s) {
		return true
	}
	if _, ok := readProxy(p.lines[i+1].s); ok {
		return true
	}
	if sec, ok := lookupSection(s); ok {
		return sec == current // its own heading does not come again
	}
	if isParagraph(s) {
		return false
	}
	// A heading stands before the next table. Where nothing else can be it,
	// this line is: better a heading that is not known than rows in the wrong
	// section.
	for j := i + 1; j < len(p.lines); j++ {
		if p.header(j) != nil {
			return false
		}
		if s := p.lines[j].s; !isParagraph(s) && !isSystems(s) {
			return true
		}
	}
	return true
}
