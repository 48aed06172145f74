package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Finding is one fault of a script, however often it occurs.
type Finding struct {
	// Kind is one of Kinds.
	Kind string `json:"kind"`
	// Severity is "error" for what fails on some devices, "warning" for what may.
	Severity string `json:"severity"`
	Message  string `json:"message"`
	// Line and Column are the first place and begin at 1; 0 for what is about the
	// script as a whole.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Count is how often the fault occurs, at least 1.
	Count int `json:"count"`
	// Places are the first places, at most maxPlaces; empty for what is about the
	// script as a whole.
	Places []Place `json:"places,omitempty"`
}

// A Place is a position in a script. Both begin at 1.
type Place struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

const (
	Error   = "error"
	Warning = "warning"
)

// Kinds are the kinds of findings, and what each is about.
var Kinds = map[string]string{
	"answer":       "an answer that is invalid, or none",
	"answer-type":  "an answer other than PROXY and DIRECT",
	"backtracking": "regular expressions that can take exponential time",
	"client-ip":    "decisions by the device's own address",
	"clock":        "decisions by the device's clock",
	"comma":        "a comma before a closing bracket",
	"control":      "control characters",
	"dns":          "functions that wait for DNS",
	"encoding":     "encodings other than ASCII and UTF-8",
	"engine":       "answers that depend on the engine",
	"es3":          "syntax and names newer than ES3",
	"eval":         "text that runs as a script",
	"global":       "global variables that functions change",
	"https-path":   "decisions by the path of an https URL",
	"limit":        "a script that exceeds a limit of this program",
	"missing":      "FindProxyForURL or its parameters are missing",
	"name":         "names that are not defined",
	"non-ascii":    "characters outside ASCII",
	"redefined":    "functions that are defined twice, or that browsers have",
	"scope":        "with, and assignments to undeclared names",
	"shexpmatch":   "shExpMatch",
	"size":         "a large script",
	"slow":         "a script too slow to try all URLs",
	"syntax":       "syntax errors",
	"table":        "objects as tables, indexed without a prefix",
	"unstable":     "answers that change between calls",
	"unsupported":  "functions that Apple's devices do not have",
}

const (
	maxPlaces = 5
	// maxPerKind bounds how many messages of a kind there are. The rest is one
	// finding.
	maxPerKind = 20
)

// String writes the finding as LINE:COLUMN: severity: text.
func (f Finding) String() string {
	if f.Line == 0 {
		return f.Severity + ": " + f.Text()
	}
	return fmt.Sprintf("%d:%d: %s: %s", f.Line, f.Column, f.Severity, f.Text())
}

// Text is the message with the kind, the count and further places.
func (f Finding) Text() string {
	var b strings.Builder
	b.WriteString(f.Message + " [" + f.Kind)
	if f.Count > 1 {
		fmt.Fprintf(&b, ", %d times", f.Count)
		for i, p := range f.Places[min(1, len(f.Places)):] {
			if i == 0 {
				b.WriteString(", also")
			}
			fmt.Fprintf(&b, " %d:%d", p.Line, p.Column)
		}
		if len(f.Places) > 0 && len(f.Places) < f.Count {
			b.WriteString(" …")
		}
	}
	b.WriteString("]")
	return b.String()
}

// A collector groups findings by kind and message.
type collector struct {
	found map[[2]string]*Finding
	kinds map[string]int // messages
}

func (c *collector) add(kind string, line, column int, severity, message string) {
	key := [2]string{kind, message}
	f := c.found[key]
	if f == nil && c.kinds[kind] >= maxPerKind {
		message = "more findings of this kind"
		key[1] = message
		f = c.found[key]
	}
	if f == nil {
		if c.found == nil {
			c.found, c.kinds = map[[2]string]*Finding{}, map[string]int{}
		}
		c.kinds[kind]++
		f = &Finding{Kind: kind, Severity: severity, Message: message}
		c.found[key] = f
	}
	f.Count++
	if line == 0 {
		return
	}
	// The walk is not in the order of the text.
	place := Place{line, column}
	at, _ := slices.BinarySearchFunc(f.Places, place, comparePlaces)
	if at < maxPlaces {
		f.Places = slices.Insert(f.Places, at, place)
		f.Places = f.Places[:min(len(f.Places), maxPlaces)]
		f.Line, f.Column = f.Places[0].Line, f.Places[0].Column
	}
}

func comparePlaces(a, b Place) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}

// findings returns what was found, by place.
func (c *collector) findings() []Finding {
	var list []Finding
	for _, f := range c.found {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b Finding) int {
		return cmp.Or(comparePlaces(Place{a.Line, a.Column}, Place{b.Line, b.Column}),
			cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Message, b.Message))
	})
	return list
}
