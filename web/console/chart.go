package console

import "time"

// A Chart is drawn by a script from the table that it is without one.
type Chart struct {
	Label   string // what is shown, as the locale has it
	Unit    string // bytes or count
	Stacked bool
	Times   []time.Time
	Series  []Series // none: there is nothing to show
}

// Series are the values of a name, as many as there are times.
type Series struct {
	Name   string // as the locale has it
	Colour int    // from 1; 0 is that of what is not listed by name
	Values []int64
}

// Windows are the periods that a page offers, and which of them it shows.
type Windows struct {
	At   string // path of the page
	Now  string
	List []string
}

// A Share is a name and its part of something.
type Share struct {
	Name     string // empty: all that are not listed by name
	Link     string // to its records; empty: none
	Bytes    int64
	Requests int64
}
