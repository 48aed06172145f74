package catalog

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// A heading is the heading of a table, and those above it.
type heading struct {
	name    string   // the nearest; empty where none is
	parents []string // those above it, the nearest first
	// loose says that levels are not known, so that the parents may as well be
	// sections of their own without a table.
	loose bool
}

// A found row is a row as the article has it.
type found struct {
	Row
	heading heading
	mark    string // the cell of proxy support
	known   bool   // whether the head of its column is in a language that is known
	at      string // where it was read, for errors
}

// A grid is a table whose cells are known, empty ones too.
type grid struct {
	heading heading
	rows    []gridRow
	// fixed says that the rows have the six columns of the article and no head.
	fixed bool
}

type gridRow struct {
	at    string // for errors: "line 7", "line 7: table 2, row 3"
	cells []string
	spans string // the attribute of a cell that spans several, which a row must not have
}

// readGrids reads the tables of the article, and leaves those out that are not
// its own. Tables with the same head have the same columns, so that the cells of
// all tell what a column holds that is empty in one.
func readGrids(grids []grid, known []Row) (list []found, err error) {
	heads := make([]int, len(grids))
	pools := map[string]*grid{}
	key := func(i int) string {
		if heads[i] == 0 {
			return fmt.Sprint(grids[i].fixed, len(grids[i].rows[0].cells))
		}
		return strings.Join(grids[i].rows[heads[i]-1].cells, "\x00") + "\x00"
	}
	for i := range grids {
		if heads[i], err = grids[i].headRows(); err != nil {
			return nil, err
		}
		if heads[i] < 0 {
			continue
		}
		pool := pools[key(i)]
		if pool == nil {
			pool = &grid{fixed: grids[i].fixed, rows: slices.Clone(grids[i].rows[max(heads[i]-1, 0):heads[i]])}
			pools[key(i)] = pool
		}
		pool.rows = append(pool.rows, grids[i].rows[heads[i]:]...)
	}
	columns := map[string][]column{}
	for i := range grids {
		if heads[i] < 0 {
			continue
		}
		k := key(i)
		if columns[k] == nil {
			if columns[k], err = pools[k].columns(min(heads[i], 1), known); err != nil {
				return nil, err
			}
		}
		rows, err := grids[i].read(columns[k], heads[i])
		if err != nil {
			return nil, err
		}
		list = append(list, rows...)
	}
	return list, nil
}

// read returns the rows below a head of so many rows.
func (g *grid) read(cols []column, head int) ([]found, error) {
	if head == len(g.rows) {
		return nil, fmt.Errorf("%s: no row below the table's head", g.rows[0].at)
	}
	known := false
	if k := slices.Index(cols, colProxy); head > 0 && k >= 0 {
		_, known = lookupColumn(g.rows[head-1].cells[k])
	}
	var list []found
	at := g.heading
	for _, row := range g.rows[head:] {
		if head > 0 && slices.Equal(row.cells, g.rows[head-1].cells) {
			continue // the head again, of a table that follows without a heading
		}
		if s, ok := row.title(); ok {
			at = heading{name: s, parents: append([]string{g.heading.name}, g.heading.parents...)}
			continue
		}
		f, err := row.read(cols)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", row.at, err)
		}
		f.heading, f.known = at, known
		list = append(list, f)
	}
	return list, nil
}

// title is the text of a row that has only its first cell, if that is not a host.
func (r *gridRow) title() (string, bool) {
	if len(r.cells) == 0 || slices.ContainsFunc(r.cells[1:], func(s string) bool { return !isBlank(s) }) {
		return "", false
	}
	s := r.cells[0]
	ok := strings.ContainsFunc(s, unicode.IsLetter) && !isHost(foldHost(s)) && (strings.Contains(s, " ") || !strings.Contains(s, "."))
	return s, ok
}

// isData reports whether a row is one of the article's by what its cells hold.
func (r *gridRow) isData() bool {
	return slices.ContainsFunc(r.cells, func(s string) bool { return isHost(foldHost(s)) }) && slices.ContainsFunc(r.cells, isNumbers)
}

// headRows is how many rows the head of a table has, -1 where the table is not
// the article's.
func (g *grid) headRows() (int, error) {
	if len(g.rows) == 0 {
		return -1, nil
	}
	if !g.rows[0].isData() && slices.ContainsFunc(g.rows[0].cells, func(s string) bool { c, ok := lookupColumn(s); return ok && c == colHost }) {
		return 1, nil
	}
	head := slices.IndexFunc(g.rows, func(r gridRow) bool { return r.isData() })
	if head < 0 {
		return -1, nil
	}
	for _, r := range g.rows[:head] {
		if slices.ContainsFunc(r.cells, isNumbers) && slices.ContainsFunc(r.cells, isTransports) {
			return 0, fmt.Errorf("%s: %w", r.at, checkHost(r.cells[0]))
		}
	}
	return head, nil
}

// columns tells what the columns hold, by their heads where those are known and
// by their cells otherwise. The head has one row or none.
func (g *grid) columns(head int, known []Row) (cols []column, err error) {
	if g.fixed {
		return []column{colHost, colPorts, colTransports, colSystems, colPurpose, colProxy}, nil
	}
	width := len(g.rows[0].cells)
	if head == 0 {
		for _, r := range g.rows {
			width = max(width, len(r.cells))
		}
	}
	cols = slices.Repeat([]column{numColumns}, width)
	name := func(i int) string {
		if head == 0 {
			return ""
		}
		return g.rows[0].cells[i]
	}
	for i := range cols {
		if c, ok := lookupColumn(name(i)); ok {
			if slices.Contains(cols, c) {
				return nil, fmt.Errorf("%s: duplicate column %q", g.rows[0].at, name(i))
			}
			cols[i] = c
		}
	}
	g.byCells(cols, head)
	if !slices.Contains(cols, colHost) {
		return nil, fmt.Errorf("%s: no column of host names", g.rows[0].at)
	}
	g.byPlace(cols, head, name, known)
	if i := slices.Index(cols, numColumns); i >= 0 {
		return nil, fmt.Errorf("%s: unknown column %q", g.rows[0].at, name(i))
	}
	return cols, nil
}

// byCells gives the columns that their cells tell to those that their heads do
// not.
func (g *grid) byCells(cols []column, head int) {
	for c, is := range map[column]func(string) bool{
		colHost: func(s string) bool { return isHost(foldHost(s)) }, colPorts: isNumbers, colTransports: isTransports, colSystems: looksLikeSystems,
	} {
		if slices.Contains(cols, c) {
			continue
		}
		best, most := -1, 0
		for i := range cols {
			if cols[i] != numColumns {
				continue
			}
			n, filled := 0, 0
			for _, r := range g.rows[head:] {
				if i < len(r.cells) && !isBlank(r.cells[i]) {
					filled++
					if is(r.cells[i]) {
						n++
					}
				}
			}
			// A description can have a system's name and a word, too.
			if n > most && (2*n > filled && c != colSystems || 10*n >= 9*filled) {
				best, most = i, n
			}
		}
		if best >= 0 {
			cols[best] = c
		}
	}
}

// byPlace gives the columns that are left: that of proxy support by its head, by
// its cells, or else by being the last of several, and that of descriptions.
func (g *grid) byPlace(cols []column, head int, name func(int) string, known []Row) {
	var left []int
	for i, c := range cols {
		if c == numColumns {
			left = append(left, i)
		}
	}
	take := func(c column, i int) {
		if !slices.Contains(cols, c) {
			cols[i] = c
			left = slices.DeleteFunc(left, func(k int) bool { return k == i })
		}
	}
	host := slices.Index(cols, colHost)
	for _, is := range []func(int) bool{
		func(i int) bool { return containsAny(name(i), proxyWords) },
		func(i int) bool {
			return g.any(i, head, func(s string) bool { p, _ := readProxy(s); return p == ProxyYes })
		},
		func(i int) bool {
			v := newMarkVotes(known)
			for _, r := range g.rows[head:] {
				if max(i, host) < len(r.cells) && isMarkLike(r.cells[i]) {
					v.add(foldHost(r.cells[host]), r.cells[i])
				}
			}
			return v.word() != ""
		},
	} {
		if i := slices.IndexFunc(left, is); i >= 0 {
			take(colProxy, left[i])
		}
	}
	if n := len(left); n > 1 {
		take(colProxy, left[n-1])
	}
	// A column of systems that names none is empty.
	if n := len(left); n > 1 && g.isEmpty(left[0], head) {
		take(colSystems, left[0])
	}
	if len(left) > 0 {
		take(colPurpose, left[0])
	}
	if len(left) > 0 && g.isEmpty(left[0], head) {
		take(colSystems, left[0])
	}
}

// any reports whether a cell of a column is so, empty ones aside.
func (g *grid) any(col, head int, is func(string) bool) bool {
	return slices.ContainsFunc(g.rows[head:], func(r gridRow) bool {
		return col < len(r.cells) && !isBlank(r.cells[col]) && is(r.cells[col])
	})
}

func (g *grid) isEmpty(col, head int) bool {
	return !g.any(col, head, func(string) bool { return true })
}

// read reads a row of cells in the order of cols. Cells missing at its end are
// empty.
func (r *gridRow) read(cols []column) (f found, err error) {
	f.at = r.at
	cell := func(c column) string {
		if i := slices.Index(cols, c); i >= 0 && i < len(r.cells) {
			return r.cells[i]
		}
		return ""
	}
	f.Host = foldHost(cell(colHost))
	if err := checkHost(f.Host); err != nil {
		return f, err
	}
	fail := func(what string, err error) (found, error) { return f, fmt.Errorf("%s: %s: %w", f.Host, what, err) }
	if r.spans != "" {
		return fail("cells", fmt.Errorf("a cell with %s is not understood", r.spans))
	}
	if len(r.cells) > len(cols) && slices.ContainsFunc(r.cells[len(cols):], func(s string) bool { return !isBlank(s) }) {
		return fail("cells", fmt.Errorf("%d in the row, %d in the table's head", len(r.cells), len(cols)))
	}
	if slices.Contains(cols, colPorts) {
		if f.Ports, err = readPorts(cell(colPorts)); err != nil {
			return fail("ports", err)
		}
	}
	if slices.Contains(cols, colTransports) {
		if f.Transports, err = readTransports(cell(colTransports)); err != nil {
			return fail("protocol", err)
		}
	}
	if s := cell(colSystems); !isBlank(s) {
		if f.Systems, err = readSystems(s); err != nil {
			return fail("OS", err)
		}
	}
	if s := cell(colPurpose); !isBlank(s) {
		f.Purpose = s
	}
	f.mark = cell(colProxy)
	f.finish(cols)
	return f, nil
}

// finish fills in what the cells of a row do not say.
func (f *found) finish(cols []column) {
	if !slices.Contains(cols, colPorts) {
		f.Ports, f.Unknown = []uint16{443}, append(f.Unknown, "ports")
	}
	if !slices.Contains(cols, colTransports) {
		f.Transports, f.Unknown = []string{"tcp"}, append(f.Unknown, "transports")
	}
	if !slices.Contains(cols, colSystems) {
		f.Unknown = append(f.Unknown, "systems")
	}
	if !slices.Contains(cols, colProxy) {
		f.Unknown = append(f.Unknown, "proxy")
	}
}
