package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// A Problem is one mistake in the configuration, or a warning, and its place.
type Problem struct {
	// File is the configuration file's name as it was given, or
	// "environment NAME" or "flag --set KEY".
	File string
	// Line and Column begin at 1 and count characters; 0 where the place is no
	// file, or the file as a whole.
	Line, Column int
	// Key is the path of the key at fault, such as "rules[2].when.hosts[0]";
	// empty for a mistake of the file as a whole.
	Key string
	// Message says what is wrong and what is allowed.
	Message string
}

// Error returns "file:line:column: key: message" on one line, without the parts
// that are not known.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if p.Key != "" && !strings.HasSuffix(p.File, " "+p.Key) { // a flag has named it
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, b.String())
}

// Problems are all mistakes of a configuration: those of the file by position,
// then those of the environment, then those of flags.
type Problems []Problem

// Error returns the problems, one a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// sort brings p into the order that Problems promises.
func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		inFile := func(x Problem) int { return cmp.Compare(0, x.Line) } // -1 in a file, 0 elsewhere
		return cmp.Or(
			cmp.Compare(inFile(a), inFile(b)),
			cmp.Compare(a.File, b.File), // "environment" before "flag"
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Key, b.Key),
			cmp.Compare(a.Message, b.Message),
		)
	})
}
