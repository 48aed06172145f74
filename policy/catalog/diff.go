package catalog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Kinds of a Change.
const (
	Added   = "added"   // only the new list has the row
	Removed = "removed" // only the old list has it
	Changed = "changed" // both have it, with different cells
	Moved   = "moved"   // both have it with the same cells, below different headings
)

// A Change is a difference between two lists of rows.
type Change struct {
	Kind string
	// Old is nil where the row is added, New where it is removed.
	Old, New *Row
	// Cells are the differences of a changed or moved row.
	Cells []CellChange
}

// Row is the row that the change is about, the new one where there is one.
func (c Change) Row() *Row {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// MarshalJSON implements json.Marshaler.
func (c Change) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Change  string       `json:"change"`
		Host    string       `json:"host"`
		Service string       `json:"service"`
		Cells   []CellChange `json:"cells"` // never null
		Old     *Row         `json:"old"`
		New     *Row         `json:"new"`
	}{c.Kind, c.Row().Host, c.Row().Service, append([]CellChange{}, c.Cells...), c.Old, c.New})
}

// A CellChange is a difference between two rows.
type CellChange struct {
	Cell string `json:"cell"` // ports, transports, systems, proxy, until, section or service
	Old  string `json:"old"`  // "" is an empty cell, "unknown" one that is not known
	New  string `json:"new"`
}

// Diff tells what new changes in old. Rows belong together by their host: first
// those of the same service, then those with the same cells, then by their order.
// The order inside a cell, the purpose, provenance and notes make no difference,
// nor do two names of the same section, nor a cell that new does not know.
//
// A retired row of old that new does not have is not removed: it was already.
// One that new still lists, or lists again, is changed in "until".
//
// Changed and removed rows come first, in the order of old, then the added ones
// in the order of new, and then those that only moved.
func Diff(old, new []Row) []Change {
	pairs := pairRows(old, new)
	fresh := map[int]*Row{}
	for i, k := range pairs {
		if k >= 0 {
			fresh[k] = &new[i]
		}
	}
	var changes, moved []Change
	for k := range old {
		o, n := &old[k], fresh[k]
		if n == nil {
			if o.Until == "" {
				changes = append(changes, Change{Kind: Removed, Old: o})
			}
			continue
		}
		cells, place := diffCells(o, n), diffPlace(o, n)
		switch {
		case cells != nil:
			changes = append(changes, Change{Kind: Changed, Old: o, New: n, Cells: append(cells, place...)})
		case place != nil:
			moved = append(moved, Change{Kind: Moved, Old: o, New: n, Cells: place})
		}
	}
	for i, k := range pairs {
		if k < 0 {
			changes = append(changes, Change{Kind: Added, New: &new[i]})
		}
	}
	return append(changes, moved...)
}

// diffPlace compares where two rows are listed and what they count for.
func diffPlace(old, new *Row) (diff []CellChange) {
	if !sameService(old.Section, new.Section) {
		diff = append(diff, CellChange{"section", old.Section, new.Section})
	}
	if old.Service != new.Service {
		diff = append(diff, CellChange{"service", old.Service, new.Service})
	}
	return diff
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
