package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// Kinds of a Change.
const (
	Added   = "added"   // only the new list has the row
	Removed = "removed" // only the old list has it
	Changed = "changed" // both have it, with different cells
)

// A Change is a difference between two lists of rows.
type Change struct {
	Kind string
	// Old is nil where the row is added, New where it is removed.
	Old, New *Row
	// Cells are the differences of a changed row.
	Cells []CellChange
}

// Row is the row that the change is about, the new one where there is one.
func (c Change) Row() *Row {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// A CellChange is a difference between two rows.
type CellChange struct {
	Cell string `json:"cell"` // ports, transports, systems, proxy or until
	Old  string `json:"old"`  // "" is an empty cell, "unknown" one that is not known
	New  string `json:"new"`
}

// Diff tells what new changes in old. Rows belong together where host and
// service agree, in their order where a list has several such rows. The order
// inside a cell, the section's title, purpose, provenance and notes make no
// difference, nor does a cell that new does not know.
//
// A retired row of old that new does not have is not removed: it was already.
// One that new still lists, or lists again, is changed in "until".
//
// Changes come in the order of old, then the added rows in the order of new.
func Diff(old, new []Row) []Change {
	type key struct{ host, service string }
	rest := map[key][]*Row{}
	for i := range new {
		k := key{new[i].Host, new[i].Service}
		rest[k] = append(rest[k], &new[i])
	}
	var changes []Change
	for i := range old {
		o := &old[i]
		k := key{o.Host, o.Service}
		if len(rest[k]) == 0 {
			if o.Until == "" {
				changes = append(changes, Change{Kind: Removed, Old: o})
			}
			continue
		}
		n := rest[k][0]
		rest[k] = rest[k][1:]
		if cells := diffCells(o, n); cells != nil {
			changes = append(changes, Change{Kind: Changed, Old: o, New: n, Cells: cells})
		}
	}
	for i := range new {
		n := &new[i]
		k := key{n.Host, n.Service}
		if len(rest[k]) > 0 && rest[k][0] == n {
			rest[k] = rest[k][1:]
			changes = append(changes, Change{Kind: Added, New: n})
		}
	}
	return changes
}

func diffCells(old, new *Row) (diff []CellChange) {
	add := func(cell, o, n string) {
		if slices.Contains(old.Unknown, cell) {
			o = "unknown"
		}
		if o != n && !slices.Contains(new.Unknown, cell) {
			diff = append(diff, CellChange{cell, o, n})
		}
	}
	add("ports", joinSorted(old.Ports), joinSorted(new.Ports))
	add("transports", joinSorted(old.Transports), joinSorted(new.Transports))
	add("systems", joinSorted(old.Systems), joinSorted(new.Systems))
	add("proxy", string(old.Proxy), string(new.Proxy))
	add("until", old.Until, new.Until)
	return diff
}

func joinSorted[T uint16 | string](list []T) string {
	list = slices.Clone(list)
	slices.Sort(list)
	return join(list, ", ")
}

func join[T any](list []T, sep string) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = fmt.Sprint(v)
	}
	return strings.Join(parts, sep)
}
