package catalog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// importHTML reads the article as a web page: its headings and tables in the
// order in which they stand.
func importHTML(data []byte) ([]Row, error) {
	doc, err := html.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	p := htmlParser{source: edition(cellText(doc))}
	for n := range doc.Descendants() {
		switch {
		case heading(n):
			if s := cellText(n); s != "" && !isSystems(s) {
				p.heading = s
			}
		case n.DataAtom == atom.Table:
			p.tables++
			p.rowAt = 0
			if err := p.table(n); err != nil {
				return nil, fmt.Errorf("line %d: %w", lineOf(data, p.tables, p.rowAt), err)
			}
		}
	}
	if p.rows == nil {
		return nil, errNoTable
	}
	return p.rows, nil
}

// lineOf is the line on which a row of a table begins, both counted from 1 as
// they begin in the page, or the table where the row has no tag of its own. The
// tree that the rows are read from does not know its lines.
func lineOf(data []byte, table, row int) int {
	z := html.NewTokenizer(bytes.NewReader(data))
	line, found, tables, rows := 1, 1, 0, 0
	var open []int // the tables that are open, the innermost last
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			return found
		}
		at := line
		line += bytes.Count(z.Raw(), []byte{'\n'})
		name, _ := z.TagName()
		switch atom.Lookup(name) {
		case atom.Table:
			switch {
			case kind == html.StartTagToken:
				if tables++; tables == table {
					found = at
				}
				open = append(open, tables)
			case kind == html.EndTagToken && len(open) > 0:
				open = open[:len(open)-1]
			}
		case atom.Tr:
			if kind == html.StartTagToken && len(open) > 0 && open[len(open)-1] == table {
				if rows++; rows == row {
					return at
				}
			}
		}
	}
}

type htmlParser struct {
	rows    []Row
	source  string
	tables  int
	rowAt   int    // the row of the table that is read, from 1; 0: not yet one
	heading string // the last one, lists of systems aside; empty once used
	section section
}

func heading(n *html.Node) bool {
	switch n.DataAtom {
	case atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6:
		return true
	}
	return false
}

// table reads a table of the article. Tables that have neither its head nor a
// row like its rows are not its own.
func (p *htmlParser) table(n *html.Node) error {
	trs := tableRows(n)
	if len(trs) == 0 {
		return nil
	}
	head := texts(trs[0])
	if !slices.ContainsFunc(head, func(s string) bool { c, ok := lookupColumn(s); return ok && c == colHost }) {
		for i, tr := range trs {
			if c := texts(tr); len(c) > 1 && isHost(c[0]) && isNumbers(c[1]) {
				p.rowAt = i + 1
				return fmt.Errorf("table %d, row %d: %s: a row like the article's below a head that is not (%s)",
					p.tables, i+1, c[0], strings.Join(head, ", "))
			}
		}
		return nil
	}
	var cols []column
	for _, s := range head {
		c, ok := lookupColumn(s)
		if !ok || slices.Contains(cols, c) {
			return fmt.Errorf("table %d: the column %q is not known or stands twice", p.tables, s)
		}
		cols = append(cols, c)
	}
	if p.heading != "" {
		sec, ok := lookupSection(p.heading)
		if !ok || sec.service == "" {
			return fmt.Errorf("table %d: the heading %q is not a section that is known here", p.tables, p.heading)
		}
		p.section, p.heading = sec, ""
	}
	if p.section.service == "" {
		return fmt.Errorf("table %d: no section's heading above it", p.tables)
	}
	if len(trs) == 1 {
		return fmt.Errorf("table %d: no row below its head", p.tables)
	}
	for i, tr := range trs[1:] {
		p.rowAt = i + 2
		r, err := p.row(tr, cols)
		if err != nil {
			return fmt.Errorf("table %d, row %d: %w", p.tables, i+2, err)
		}
		p.rows = append(p.rows, r)
	}
	return nil
}

// row reads a row of cells in the order of cols. Cells missing at its end are
// empty.
func (p *htmlParser) row(tr []*html.Node, cols []column) (Row, error) {
	r := Row{}
	cells := texts(tr)
	if i := slices.Index(cols, colHost); i < len(cells) {
		r.Host = strings.ToLower(cells[i])
	}
	if err := checkHost(r.Host); err != nil {
		return r, err
	}
	fail := func(what string, err error) (Row, error) {
		return r, fmt.Errorf("%s: %s: %w", r.Host, what, err)
	}
	for _, td := range tr {
		for _, a := range td.Attr {
			if (a.Key == "colspan" || a.Key == "rowspan") && a.Val != "1" {
				return fail("cells", fmt.Errorf("a cell with %s is not understood", a.Key))
			}
		}
	}
	if len(cells) > len(cols) {
		return fail("cells", fmt.Errorf("%d in the row, %d in the table's head", len(cells), len(cols)))
	}
	for i, c := range cols {
		s := ""
		if i < len(cells) {
			s = cells[i]
		}
		var err error
		switch c {
		case colPorts:
			if r.Ports, err = readPorts(s); err != nil {
				return fail("ports", err)
			}
		case colTransports:
			if r.Transports, err = readTransports(s); err != nil {
				return fail("protocol", err)
			}
		case colSystems:
			if !isBlank(s) {
				if r.Systems, err = readSystems(s); err != nil {
					return fail("OS", err)
				}
			}
		case colPurpose:
			if !isBlank(s) {
				r.Purpose = s
			}
		case colProxy:
			var ok bool
			if r.Proxy, ok = readProxy(s); !ok {
				return fail("proxy support", fmt.Errorf("%q is not understood (known: Yes, Ja, nothing, the note on APNs)", s))
			}
		}
	}
	finish(&r, cols, p.section, p.source)
	return r, nil
}

// tableRows returns the cells of each row of table, those of tables inside it
// aside.
func tableRows(table *html.Node) (rows [][]*html.Node) {
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		for c := range n.ChildNodes() {
			switch c.DataAtom {
			case atom.Tr:
				var cells []*html.Node
				for td := range c.ChildNodes() {
					if td.DataAtom == atom.Td || td.DataAtom == atom.Th {
						cells = append(cells, td)
					}
				}
				if len(cells) > 0 {
					rows = append(rows, cells)
				}
			case atom.Thead, atom.Tbody, atom.Tfoot:
				walk(c)
			}
		}
	}
	walk(table)
	return rows
}

func texts(cells []*html.Node) []string {
	out := make([]string, len(cells))
	for i, c := range cells {
		out[i] = cellText(c)
	}
	return out
}

// cellText is the text of n as it shows, without footnote marks. Line breaks
// and paragraphs separate words.
func cellText(n *html.Node) string {
	var b strings.Builder
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		switch {
		case n.Type == html.TextNode:
			b.WriteString(n.Data)
			return
		case n.DataAtom == atom.Sup || n.DataAtom == atom.Script || n.DataAtom == atom.Style || n.DataAtom == atom.Template:
			return
		}
		block := n.DataAtom == atom.Br || n.DataAtom == atom.P || n.DataAtom == atom.Div || n.DataAtom == atom.Li
		if block {
			b.WriteByte(' ')
		}
		for c := range n.ChildNodes() {
			walk(c)
		}
		if block {
			b.WriteByte(' ')
		}
	}
	walk(n)
	return clean(b.String())
}
