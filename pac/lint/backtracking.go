package lint

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
)

// patternOf checks the patterns of shExpMatch and RegExp.
func (w *walker) patternOf(callee ast.Expression, args []ast.Expression) {
	id, ok := callee.(*ast.Identifier)
	if !ok {
		return
	}
	argument := map[string]int{"shExpMatch": 1, "RegExp": 0}
	i, ok := argument[id.Name.String()]
	if !ok || i >= len(args) {
		return
	}
	s, ok := args[i].(*ast.StringLiteral)
	if !ok {
		return
	}
	pattern := s.Value.String()
	if i == 1 {
		w.backtracking(s.Idx, s.Literal, strings.NewReplacer(".", `\.`, "*", ".*", "?", ".").Replace(pattern))
	} else {
		w.pattern(s.Idx, s.Literal, pattern)
	}
}

// pattern checks a regular expression. text is how it is written.
func (w *walker) pattern(idx file.Idx, text, pattern string) {
	p := w.position(idx)
	w.expression(p.Line, p.Column, pattern)
	w.backtracking(idx, text, pattern)
}

func (w *walker) backtracking(idx file.Idx, text, pattern string) {
	if w.backtracks(pattern) {
		w.at("backtracking", idx, Error, "%s can take exponential time: a repetition repeats what matches the same text in many ways", shortened(text))
	}
}

func shortened(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// goSyntax makes of a pattern of JavaScript one that Go reads, as far as backtracking
// is concerned: what looks around or back is dropped, and every group captures, or Go
// would merge a loop with the one within.
var goSyntax = strings.NewReplacer(`\\`, `\\`, "(?:", "(", "(?=", "(", "(?!", "(", "(?<=", "(", "(?<!", "(", "[^]", `[\x00-\x{10FFFF}]`, "[]", `[^\x00-\x{10FFFF}]`,
	`\1`, "", `\2`, "", `\3`, "", `\4`, "", `\5`, "", `\6`, "", `\7`, "", `\8`, "", `\9`, "", `\/`, "/")

// backtracks reports whether an engine that backtracks can take exponential time: a
// loop in the automaton of the pattern reads one text in several ways.
func (c *checker) backtracks(pattern string) bool {
	pattern = bounds.ReplaceAllStringFunc(goSyntax.Replace(pattern), unbound)
	// Groups keep Go from merging alternatives, as it does with \w|\d.
	re, err := syntax.Parse(strings.ReplaceAll(pattern, "|", "|()"), syntax.Perl)
	if err != nil || c.searched > maxSteps {
		return false
	}
	greedy(re)
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return false
	}
	a := newAutomaton(prog, &c.searched)
	return a.ambiguous(&c.searched)
}

// maxBound is the largest number of repetitions that is counted. Go's limit is for
// nested ones together.
const maxBound = 20

var bounds = regexp.MustCompile(`\{\d+(,\d*)?\}`)

// unbound reduces the numbers of "{2,63}".
func unbound(s string) string {
	least, most, isRange := strings.Cut(s[1:len(s)-1], ",")
	number := func(s string) int {
		if n, err := strconv.Atoi(s); err == nil && n < maxBound {
			return n
		}
		return maxBound
	}
	switch {
	case !isRange:
		return fmt.Sprintf("{%d}", number(least))
	case most == "" || number(most) == maxBound:
		return fmt.Sprintf("{%d,}", min(number(least), 1))
	}
	return fmt.Sprintf("{%d,%d}", min(number(least), number(most)), number(most))
}

// greedy makes loops greedy, which does not change what they read.
func greedy(re *syntax.Regexp) {
	re.Flags &^= syntax.NonGreedy
	for _, sub := range re.Sub {
		greedy(sub)
	}
}

// An automaton has a state for each instruction that reads a character.
type automaton struct {
	reads [][]rune // ranges of characters, by state
	next  [][]int  // the states that read the next character, by state
	// twice are pairs of a state and one of its next states that it reaches in two ways.
	twice map[[2]int]bool
}

// newAutomaton leaves states without next ones once steps exceed maxSteps.
func newAutomaton(prog *syntax.Prog, steps *int) *automaton {
	a := &automaton{twice: map[[2]int]bool{}}
	states := map[uint32]int{}
	var insts []*syntax.Inst
	for pc := range prog.Inst {
		if ranges := readBy(&prog.Inst[pc]); ranges != nil {
			states[uint32(pc)] = len(insts)
			insts = append(insts, &prog.Inst[pc])
			a.reads = append(a.reads, ranges)
		}
	}
	for state, inst := range insts {
		ways, within := map[uint32]int{}, map[uint32]bool{}
		var follow func(pc uint32)
		follow = func(pc uint32) {
			if *steps++; within[pc] || ways[pc] >= maxWays || *steps > maxSteps {
				return // JavaScript has no empty rounds of a loop
			}
			ways[pc]++
			inst := &prog.Inst[pc]
			if readBy(inst) != nil {
				return
			}
			switch inst.Op {
			case syntax.InstAlt, syntax.InstAltMatch:
				within[pc] = true // Out is the body of a greedy loop
				follow(inst.Out)
				within[pc] = false
				follow(inst.Arg)
			case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
				follow(inst.Out)
			}
		}
		follow(inst.Out)
		var next []int
		for pc, n := range ways {
			if to, ok := states[pc]; ok {
				next = append(next, to)
				if n > 1 {
					a.twice[[2]int{state, to}] = true
				}
			}
		}
		a.next = append(a.next, next)
	}
	return a
}

// readBy are the ranges of characters that an instruction reads, nil if it reads none.
func readBy(inst *syntax.Inst) []rune {
	switch inst.Op {
	case syntax.InstRune, syntax.InstRune1:
		if len(inst.Rune) == 1 {
			return []rune{inst.Rune[0], inst.Rune[0]}
		}
		return inst.Rune
	case syntax.InstRuneAny:
		return []rune{0, unicode.MaxRune}
	case syntax.InstRuneAnyNotNL:
		return []rune{0, '\n' - 1, '\n' + 1, unicode.MaxRune}
	}
	return nil
}

// maxWays bounds how often an instruction is passed on the way to the next character.
const maxWays = 8

// maxSteps bounds the search in all automata of a script. What it does not find is not
// reported.
const maxSteps = 2_000_000

// ambiguous reports whether a cycle reads one text in two ways. For that it walks
// pairs of states that read the same text, and looks for strongly connected pairs
// (Tarjan) of which one is a state twice and another two states.
func (a *automaton) ambiguous(steps *int) bool {
	n := len(a.next)
	order, low, onStack := map[int]int{}, map[int]int{}, map[int]bool{}
	var stack []int
	found := false
	var visit func(pair int)
	visit = func(pair int) {
		order[pair] = len(order) + 1
		low[pair], onStack[pair] = order[pair], true
		stack = append(stack, pair)
		for _, i := range a.next[pair/n] {
			for _, j := range a.next[pair%n] {
				if *steps++; found || *steps > maxSteps {
					return
				}
				if to := i*n + j; !overlap(a.reads[i], a.reads[j]) {
					continue
				} else if order[to] == 0 {
					visit(to)
					low[pair] = min(low[pair], low[to])
				} else if onStack[to] {
					low[pair] = min(low[pair], order[to])
				}
			}
		}
		if low[pair] < order[pair] {
			return
		}
		at := slices.Index(stack, pair)
		var members [2]bool // of one state twice, of two states
		connected := map[int]bool{}
		for _, m := range stack[at:] {
			onStack[m] = false
			connected[m] = true
			members[0] = members[0] || m/n == m%n
			members[1] = members[1] || m/n != m%n
		}
		stack = stack[:at]
		found = found || members[0] && members[1]
		for edge := range a.twice {
			found = found || connected[edge[0]*n+edge[0]] && connected[edge[1]*n+edge[1]]
		}
	}
	for i := range n {
		if pair := i*n + i; order[pair] == 0 && !found && *steps <= maxSteps {
			visit(pair)
		}
	}
	return found
}

func overlap(a, b []rune) bool {
	for i := 0; i+1 < len(a); i += 2 {
		for j := 0; j+1 < len(b); j += 2 {
			if a[i] <= b[j+1] && b[j] <= a[i+1] {
				return true
			}
		}
	}
	return false
}
