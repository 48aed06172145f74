// Package lint says what is wrong with a PAC script, whoever wrote it: what old
// or strict engines do not take, what makes devices wait, and answers that are
// none.
package lint

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
	"github.com/dop251/goja/parser"

	"espalier/pac"
)

// A Finding is one fault of a script.
type Finding struct {
	// Line and Column begin at 1; 0 for what is about the script as a whole.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Severity is "error" for what fails on some devices, "warning" for what may.
	Severity string `json:"severity"`
	Message  string `json:"message"`
}

const (
	Error   = "error"
	Warning = "warning"
)

// String writes the finding as LINE:COLUMN: severity: message.
func (f Finding) String() string {
	if f.Line == 0 {
		return f.Severity + ": " + f.Message
	}
	return fmt.Sprintf("%d:%d: %s: %s", f.Line, f.Column, f.Severity, f.Message)
}

// MaxSize is the size of script in bytes beyond which nothing else is looked at.
const MaxSize = 256 << 10

// maxDepth bounds how deep brackets stand in each other, for the parser calls
// itself.
const maxDepth = 500

// maxFindings bounds what is returned.
const maxFindings = 200

// Check returns what is wrong with script, by place: its bytes, its syntax (ES3,
// which is what every engine takes), the functions that it calls, what it does to
// global variables, and the answers that it gives for the URLs of samples. It
// takes about ten seconds at most.
func Check(script []byte, samples []string) []Finding {
	c := &checker{src: string(script), oddLines: map[int]bool{}, undeclared: map[string]bool{}}
	if c.size() {
		if tree, err := parse(c.src); err != nil {
			c.syntax(err)
		} else {
			c.file = tree.File
			c.program(tree)
			c.answers(samples)
		}
		c.bytes()
	}
	slices.SortStableFunc(c.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(c.found)
}

func parse(src string) (tree *ast.Program, err error) {
	depth := 0
	for i := 0; i < len(src); i++ { // also in strings and comments, where it does no harm
		switch src[i] {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		}
		if depth > maxDepth {
			return nil, fmt.Errorf("more than %d brackets stand in each other", maxDepth)
		}
	}
	defer func() {
		if r := recover(); r != nil { // the parser does, with some nonsense
			tree, err = nil, errors.New("this is no script")
		}
	}()
	return parser.ParseFile(nil, "", src, 0, parser.WithDisableSourceMaps)
}

type checker struct {
	src      string
	file     *file.File
	oddLines map[int]bool // lines whose bytes outside ASCII were found in the program
	// undeclared are names that are reported for being assigned to.
	undeclared map[string]bool
	found      []Finding
}

func (c *checker) add(line, column int, severity, format string, args ...any) {
	if len(c.found) < maxFindings {
		c.found = append(c.found, Finding{line, column, severity, fmt.Sprintf(format, args...)})
	}
}

// size also takes the byte order mark away, so that the rest can be parsed.
func (c *checker) size() (bearable bool) {
	n := len(c.src)
	if n > MaxSize {
		c.add(0, 0, Error, "the script has %d bytes; nobody takes more than %d", n, MaxSize)
		return false
	}
	if n > pac.MaxSize {
		c.add(0, 0, Warning, "the script has %d bytes; devices have hung on large ones, keep it below %d", n, pac.MaxSize)
	}
	if bare, ok := strings.CutPrefix(c.src, "\ufeff"); ok {
		c.add(1, 1, Error, "a byte order mark stands in front, which some engines take for a syntax error")
		c.src = bare
	}
	return true
}

// bytes reports what is not ASCII outside of the program, that is in comments,
// and control characters.
func (c *checker) bytes() {
	for i, line := range bytes.Split([]byte(c.src), []byte("\n")) {
		odd := false
		for j, b := range line {
			if b >= 0x80 && !odd && !c.oddLines[i+1] {
				odd = true
				c.add(i+1, j+1, Warning, "a character that is not ASCII: how it is read depends on the engine")
			} else if b < ' ' && b != '\t' && b != '\f' && (b != '\r' || j < len(line)-1) || b == 0x7f {
				c.add(i+1, j+1, Error, "the control character %#x", b)
			}
		}
	}
}

func (c *checker) syntax(err error) {
	list, ok := errors.AsType[parser.ErrorList](err)
	if !ok {
		c.add(0, 0, Error, "syntax error: %v", err)
		return
	}
	for _, e := range list[:min(len(list), 10)] {
		message := strings.ToLower(e.Message[:1]) + e.Message[1:]
		c.add(e.Position.Line, e.Position.Column, Error, "syntax error: %s", message)
	}
}

// answersTime bounds how long samples are tried for.
const answersTime = 8 * time.Second

// answers runs the script. Each sample is asked twice, since an answer should
// not depend on what was asked before. Faults of one kind are reported once.
func (c *checker) answers(samples []string) {
	js, err := pac.NewBrowserEvaluator([]byte(c.src), netip.Addr{})
	if err != nil {
		c.add(0, 0, Error, "%v", err)
		return
	}
	var kinds []string
	first, more := map[string]Finding{}, map[string]int{}
	fault := func(kind, severity, format string, args ...any) {
		if _, known := first[kind]; known {
			more[kind]++
			return
		}
		kinds = append(kinds, kind)
		first[kind] = Finding{Severity: severity, Message: fmt.Sprintf(format, args...)}
	}
	begun := time.Now()
	for i, sample := range samples {
		if time.Since(begun) > answersTime {
			c.add(0, 0, Warning, "only %d of %d URLs were tried, since the script is slow", i, len(samples))
			break
		}
		url, host, _, err := pac.DeviceURL(sample)
		if err != nil {
			c.add(0, 0, Error, "%v", err)
			continue
		}
		answer, err := js.FindProxy(url, host)
		if err != nil {
			fault(err.Error(), Error, "for %s: %v", url, err)
			continue
		}
		if again, err := js.FindProxy(url, host); err != nil || again != answer {
			fault("again", Warning, "for %s it answers %q first and %q then", url, answer, again)
		}
		hops, err := pac.ParseAnswer(answer)
		if err != nil {
			fault(err.Error(), Error, "for %s it answers %q: %v", url, answer, err)
		}
		for _, hop := range hops {
			if hop.Kind != "PROXY" && hop.Kind != "DIRECT" {
				fault(hop.Kind, Warning, "for %s it answers %q: Apple's devices are only sure to understand PROXY and DIRECT", url, answer)
			}
		}
	}
	for _, kind := range kinds {
		f := first[kind]
		if n := more[kind]; n > 0 {
			f.Message += fmt.Sprintf(" (so for %d more)", n)
		}
		c.add(0, 0, f.Severity, "%s", f.Message)
	}
}
