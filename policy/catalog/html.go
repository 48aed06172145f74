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
// order of the page.
func importHTML(data []byte, known []Row) (list []found, text string, err error) {
	doc, err := html.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, "", err
	}
	var above outline
	var grids []grid
	tables, lines := 0, tableLines(data)
	for n := range doc.Descendants() {
		if level := headingLevel(n); level > 0 {
			if s := cellText(n); s != "" && !isSystems(s) {
				above.add(level, s)
			}
		}
		if n.DataAtom != atom.Table {
			continue
		}
		tables++
		g := grid{heading: above.heading()}
		for i, tr := range tableRows(n) {
			line := 1 // of the table where its row has no tag of its own
			if t := tables - 1; t < len(lines) {
				line = lines[t][min(i+1, len(lines[t])-1)]
			}
			row := gridRow{at: fmt.Sprintf("line %d: table %d, row %d", line, tables, i+1)}
			for _, td := range tr {
				row.cells = append(row.cells, cellText(td))
				for _, a := range td.Attr {
					if (a.Key == "colspan" || a.Key == "rowspan") && a.Val != "1" {
						row.spans = a.Key
					}
				}
			}
			g.rows = append(g.rows, row)
		}
		grids = append(grids, g)
	}
	list, err = readGrids(grids, known)
	return list, cellText(doc), err
}

// An outline has the headings that are open, the widest first.
type outline struct {
	levels []int
	names  []string
}

// add closes the headings of level and below, and opens another.
func (o *outline) add(level int, name string) {
	for n := len(o.levels); n > 0 && o.levels[n-1] >= level; n-- {
		o.levels, o.names = o.levels[:n-1], o.names[:n-1]
	}
	o.levels, o.names = append(o.levels, level), append(o.names, name)
}

func (o *outline) heading() (h heading) {
	names := slices.Clone(o.names)
	slices.Reverse(names)
	if len(names) > 0 {
		h.name, h.parents = names[0], names[1:]
	}
	return h
}

// tableLines are the lines on which the tables of a page begin, in the first place
// of each, and behind it those of its rows. The tree that the rows are read from
// does not know its lines.
func tableLines(data []byte) (lines [][]int) {
	z := html.NewTokenizer(bytes.NewReader(data))
	line := 1
	var open []int // the tables that are open, the innermost last
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			return lines
		}
		at := line
		line += bytes.Count(z.Raw(), []byte{'\n'})
		name, _ := z.TagName()
		switch tag := atom.Lookup(name); {
		case tag == atom.Table && kind == html.StartTagToken:
			open = append(open, len(lines))
			lines = append(lines, []int{at})
		case tag == atom.Table && kind == html.EndTagToken && len(open) > 0:
			open = open[:len(open)-1]
		case tag == atom.Tr && kind == html.StartTagToken && len(open) > 0:
			t := open[len(open)-1]
			lines[t] = append(lines[t], at)
		}
	}
}

// headingLevel is 1 for h1 to 6 for h6, 7 for a paragraph in bold outside of a
// table, 0 for anything else.
func headingLevel(n *html.Node) int {
	switch n.DataAtom {
	case atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6:
		return int(n.Data[1] - '0')
	case atom.P, atom.Div:
		c := n.FirstChild
		if c == nil || c.NextSibling != nil || c.DataAtom != atom.B && c.DataAtom != atom.Strong {
			return 0
		}
		for p := n.Parent; p != nil; p = p.Parent {
			if p.DataAtom == atom.Table {
				return 0
			}
		}
		return 7
	}
	return 0
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
