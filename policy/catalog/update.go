package catalog

import (
	"cmp"
	"slices"
	"strings"
)

// An Update says what became of the rows of a catalogue.
type Update struct {
	Retired  []Row // that the article no longer lists
	Restored []Row // that were retired and are listed again
	Newer    []Row // added since the article's edition, and kept
	// Alone says that the article lists no host of the catalogue: its rows are all
	// that the update has.
	Alone bool
}

// Update returns the rows of known as the article has them, in their order, which
// decides between rows that are equally specific, and its new rows behind them.
// Purposes, dates and notes of known rows stay. Rows that the article does not
// list are retired, with the edition as their end, unless they are newer than it.
func (a *Article) Update(known []Row) ([]Row, Update) {
	pairs := pairRows(known, a.Rows)
	listed := map[int]int{}
	for i, k := range pairs {
		if k >= 0 {
			listed[k] = i
		}
	}
	if len(listed) == 0 {
		return slices.Clone(a.Rows), Update{Alone: true}
	}
	var u Update
	var rows []Row
	for k, old := range known {
		i, ok := listed[k]
		if !ok {
			switch {
			case old.Until != "":
			case a.isOlder(old.Since):
				u.Newer = append(u.Newer, old)
			default:
				old.Until = a.Edition
				if old.Until == "" {
					old.Until = strings.TrimSpace("after " + cmp.Or(monthIn(old.Source), monthIn(old.Since)))
					if old.Until == "after" {
						old.Until = "not known"
					}
				}
				old.Note = cmp.Or(old.Note, "no longer listed")
				u.Retired = append(u.Retired, old)
			}
			rows = append(rows, old)
			continue
		}
		r := a.Rows[i]
		r.Service, r.Purpose, r.Since, r.Note = old.Service, cmp.Or(old.Purpose, r.Purpose), old.Since, old.Note
		r.Unknown = nil
		for _, cell := range a.Rows[i].Unknown {
			switch cell {
			case "ports":
				r.Ports = old.Ports
			case "transports":
				r.Transports = old.Transports
			case "systems":
				r.Systems = old.Systems
			case "proxy":
				r.Proxy = old.Proxy
			}
			if slices.Contains(old.Unknown, cell) {
				r.Unknown = append(r.Unknown, cell)
			}
		}
		if old.Until != "" {
			if a.isOlder(old.Until) {
				r.Until = old.Until
			} else {
				u.Restored = append(u.Restored, old)
			}
		}
		rows = append(rows, r)
	}
	for i, r := range a.Rows {
		if pairs[i] < 0 {
			r.Since = cmp.Or(r.Since, a.Edition)
			rows = append(rows, r)
		}
	}
	return rows, u
}

// isOlder reports whether the article's edition is from before date, a month or
// "after" one.
func (a *Article) isOlder(date string) bool {
	month := monthIn(date)
	if a.Edition == "" || month == "" {
		return false
	}
	return a.Edition < month || a.Edition == month && strings.HasPrefix(date, "after")
}
