// Package lint finds faults in PAC scripts of any origin: what old or strict engines
// reject, what makes devices wait, answers that are invalid, and answers that depend
// on the engine.
package lint

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
	"github.com/dop251/goja/parser"

	"espalier/pac"
)

// Check returns the faults of script, by place: its bytes, its syntax (ES3, which
// every engine takes), the functions that it calls, what it does to global variables,
// and the answers that it gives for the URLs of samples in each of pac.Engines. It
// takes ten seconds at most, and a few more for a script of pac.MaxInput; a larger
// one it refuses with one finding.
func Check(script []byte, samples []string) []Finding {
	c := &checker{oddLines: map[int]bool{}, undeclared: map[string]bool{}}
	if len(script) > pac.MaxInput {
		c.add("limit", 0, 0, Error, "the script has %d bytes (at most %d)", len(script), pac.MaxInput)
		return c.findings()
	}
	c.decode(script)
	if tree, err := pac.Parse(c.src); err != nil {
		c.syntax(err)
	} else {
		c.file = tree.File
		c.program(tree)
		c.answers(tree, samples)
	}
	c.bytes()
	return c.findings()
}

type checker struct {
	collector
	src      string
	encoding pac.Encoding
	file     *file.File
	oddLines map[int]bool // lines whose bytes outside ASCII were found in the program
	// undeclared are names that are reported for being assigned to.
	undeclared map[string]bool
	texts      []text // literals that may hold a path
	words      []text // literals that may be a part of one
	searched   int    // steps of ambiguous
}

func (c *checker) add(kind string, line, column int, severity, format string, args ...any) {
	c.collector.add(kind, line, column, severity, fmt.Sprintf(format, args...))
}

// decode sets src, and reports the encoding and the size.
func (c *checker) decode(script []byte) {
	c.src, c.encoding = pac.Decode(script)
	switch c.encoding {
	case pac.UTF8Mark:
		c.add("encoding", 1, 1, Error, "the script is %s, which some engines take for a syntax error: save it as ASCII", c.encoding)
	case pac.UTF16LE, pac.UTF16BE:
		c.add("encoding", 1, 1, Error, "the script is %s, which only some engines read: save it as ASCII", c.encoding)
	case pac.UTF16None, pac.UTF32LE, pac.UTF32BE:
		c.add("encoding", 1, 1, Error, "the script is %s, which no engine reads: save it as ASCII", c.encoding)
	case pac.Latin1:
		line, column := 1, 1
		for i, r := range c.src {
			if r >= 0x80 {
				before := c.src[:i]
				line = strings.Count(before, "\n") + 1
				column = utf8.RuneCountInString(before[strings.LastIndex(before, "\n")+1:]) + 1
				break
			}
		}
		c.add("encoding", line, column, Error, "the script has bytes that are not UTF-8, read as %s here: save it as ASCII", c.encoding)
	}
	if n := len(script); n > pac.MaxSize {
		c.add("size", 0, 0, Warning, "the script has %d bytes; devices have hung on large ones, keep it below %d", n, pac.MaxSize)
	}
}

// bytes reports characters outside ASCII where the program has none, that is in
// comments, and control characters.
func (c *checker) bytes() {
	line := 0
	for text := range strings.Lines(c.src) {
		line++
		text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
		odd := c.encoding != "" || c.oddLines[line]
		for i := range len(text) {
			switch b := text[i]; {
			case b >= 0x80 && !odd:
				odd = true
				c.add("non-ascii", line, i+1, Warning, "a character that is not ASCII: how it is read depends on the engine")
			case b < ' ' && b != '\t' && b != '\f', b == 0x7f:
				c.add("control", line, i+1, Error, "a control character")
			}
		}
	}
}

func (c *checker) syntax(err error) {
	if limit, ok := errors.AsType[*pac.LimitError](err); ok {
		c.add("limit", limit.Line, limit.Column, Error, "the script cannot be checked: %s", limit.Message)
		return
	}
	list, ok := errors.AsType[parser.ErrorList](err)
	if !ok {
		c.add("syntax", 0, 0, Error, "syntax error: %v", err)
		return
	}
	for _, e := range list[:min(len(list), 10)] {
		message := strings.ToLower(e.Message[:1]) + e.Message[1:]
		c.add("syntax", e.Position.Line, e.Position.Column, Error, "syntax error: %s", message)
	}
}

const (
	// answersTime bounds how long samples are tried for.
	answersTime = 8 * time.Second
	// askedTwice is how many samples are asked again.
	askedTwice = 200
)

// spread returns the sample that is tried as number i of n: the first ones in order,
// and those behind in steps, so that what time allows is spread over all.
func spread(i, n int) int {
	const inOrder, step = 1000, 7919
	rest := n - inOrder
	if i < inOrder || rest%step == 0 {
		return i
	}
	return inOrder + (i-inOrder)*step%rest
}

// A fault is a finding about answers: the first URL it was found for is reported.
type fault struct {
	severity, message string
	count             int
}

type faults struct {
	list  map[[2]string]*fault // by kind and what tells apart those of a kind
	order [][2]string
}

func (f *faults) add(kind, what, severity, format string, args ...any) {
	key := [2]string{kind, what}
	if known := f.list[key]; known != nil {
		known.count++
		return
	}
	if f.list == nil {
		f.list = map[[2]string]*fault{}
	}
	f.list[key] = &fault{severity, fmt.Sprintf(format, args...), 1}
	f.order = append(f.order, key)
}

// answers runs the script. The first samples are asked twice, since an answer should
// not depend on earlier ones.
func (c *checker) answers(tree *ast.Program, samples []string) {
	panel, err := pac.NewPanel([]byte(c.src), pac.Browser{}, pac.Engines...)
	if err != nil {
		c.add("answer", 0, 0, Error, "%v", err)
		return
	}
	js := panel[0]
	var found faults
	begun := time.Now()
	for i := range samples {
		sample := samples[spread(i, len(samples))]
		if took := time.Since(begun); took > answersTime || js.TooSlow() {
			c.add("slow", 0, 0, Warning, "only %d of %d URLs were tried in %s, since the script is slow", i, len(samples), took.Round(time.Second))
			break
		}
		url, host, _, err := pac.DeviceURL(sample)
		if err != nil {
			c.add("answer", 0, 0, Error, "%v", err)
			continue
		}
		if answers := pac.Differ(panel, url, host); answers != nil {
			var each, classes []string
			for i, e := range panel {
				each = append(each, fmt.Sprintf("%s: %s", e.Engine(), answers[i]))
				classes = append(classes, answers[i])
			}
			found.add("engine", strings.Join(classes, "\n"), Warning, "for %s the answer depends on the engine (%s)", url, strings.Join(each, ", "))
		}
		answer, err := js.FindProxy(url, host)
		if err != nil {
			what, _, _ := strings.Cut(err.Error(), " at ") // without the place
			found.add("answer", what, Error, "for %s: %v", url, err)
			continue
		}
		if i < askedTwice {
			if again, err := js.FindProxy(url, host); err != nil || again != answer {
				found.add("unstable", "", Warning, "for %s it answers %q first and %q then", url, answer, again)
			}
		}
		hops, err := pac.ParseAnswer(answer)
		if err != nil {
			found.add("answer", err.Error(), Error, "for %s it answers %q: %v", url, answer, err)
		}
		for _, hop := range hops {
			if hop.Kind != "PROXY" && hop.Kind != "DIRECT" {
				found.add("answer-type", hop.Kind, Warning, "for %s it answers %q: Apple's devices are only sure to understand PROXY and DIRECT", url, answer)
			}
		}
	}
	for _, key := range found.order {
		f := found.list[key]
		for range f.count {
			c.add(key[0], 0, 0, f.severity, "%s", f.message)
		}
	}
	if !js.TooSlow() {
		c.tables(js, tree)
		c.paths(js)
	}
}

// KindNames are the names of Kinds, in order.
func KindNames() []string { return slices.Sorted(maps.Keys(Kinds)) }
