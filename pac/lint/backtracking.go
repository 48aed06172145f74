package lint

import (
	"regexp/syntax"
	"slices"
	"strings"

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
	if backtracks(pattern) {
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
// is concerned: what looks around or back is dropped.
var goSyntax = strings.NewReplacer(`\\`, `\\`, "(?=", "(?:", "(?!", "(?:", "(?<=", "(?:", "(?<!", "(?:", "[^]", `[\x00-\x{10FFFF}]`, "[]", `[^\x00-\x{10FFFF}]`,
	`\1`, "", `\2`, "", `\3`, "", `\4`, "", `\5`, "", `\6`, "", `\7`, "", `\8`, "", `\9`, "", `\/`, "/")

// backtracks reports whether an engine that backtracks can take exponential time: a
// repetition without a bound repeats what can match one text in several ways.
func backtracks(pattern string) bool {
	pattern = goSyntax.Replace(pattern)
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err == nil && repeats(re, ambiguous) {
		return true
	}
	// Groups keep Go from merging alternatives, as it does with \w|\d.
	re, err = syntax.Parse(strings.ReplaceAll(pattern, "|", "|()"), syntax.Perl)
	return err == nil && repeats(re, alike)
}

// repeats reports whether a repetition without a bound has such a body.
func repeats(re *syntax.Regexp, such func(body *syntax.Regexp) bool) bool {
	if unbounded(re) && such(re.Sub[0]) {
		return true
	}
	return slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return repeats(sub, such) })
}

// alike reports whether two alternatives of the body match one text.
func alike(body *syntax.Regexp) bool {
	for body.Op == syntax.OpCapture {
		body = body.Sub[0]
	}
	if body.Op != syntax.OpAlternate {
		return false
	}
	for i, a := range body.Sub {
		for _, b := range body.Sub[:i] {
			if sameText(positions(a), positions(b)) {
				return true
			}
		}
	}
	return false
}

// positions are the ranges of characters at each place of what re matches; nil if the
// length varies.
func positions(re *syntax.Regexp) (list [][]rune) {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			list = append(list, []rune{r, r})
		}
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		list = [][]rune{characters(re)}
	case syntax.OpConcat, syntax.OpCapture:
		for _, sub := range re.Sub {
			if varies(sub) || sub.Op == syntax.OpAlternate {
				return nil
			}
			list = append(list, positions(sub)...)
		}
	}
	return list
}

func sameText(a, b [][]rune) bool {
	if len(a) == 0 || len(a) != len(b) {
		return false
	}
	for i := range a {
		if !overlap(a[i], b[i]) {
			return false
		}
	}
	return true
}

func unbounded(re *syntax.Regexp) bool {
	return re.Op == syntax.OpStar || re.Op == syntax.OpPlus || re.Op == syntax.OpRepeat && (re.Max < 0 || re.Max > 20)
}

// ambiguous reports whether repetitions of the body can split a text in several ways:
// a part of it varies in length, and no part that it must have is of other characters.
func ambiguous(body *syntax.Regexp) bool {
	for body.Op == syntax.OpCapture {
		body = body.Sub[0]
	}
	switch body.Op {
	case syntax.OpAlternate:
		return slices.ContainsFunc(body.Sub, ambiguous)
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		return varies(body) && body.Op != syntax.OpQuest || ambiguous(body.Sub[0])
	case syntax.OpConcat:
	default:
		return false
	}
	for i, part := range body.Sub {
		if !varies(part) {
			continue
		}
		apart := false
		for j, other := range body.Sub {
			apart = apart || i != j && shortest(other) > 0 && !overlap(characters(part), characters(other))
		}
		if !apart {
			return true
		}
	}
	return false
}

// varies reports whether re matches texts of different lengths.
func varies(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest:
		return true
	case syntax.OpRepeat:
		return re.Min != re.Max || varies(re.Sub[0])
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			if varies(sub) || shortest(sub) != shortest(re.Sub[0]) {
				return true
			}
		}
		return false
	}
	return slices.ContainsFunc(re.Sub, varies)
}

// shortest is the length of the shortest text that re matches.
func shortest(re *syntax.Regexp) int {
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpStar, syntax.OpQuest:
		return 0
	case syntax.OpRepeat:
		return re.Min * shortest(re.Sub[0])
	case syntax.OpAlternate:
		n := shortest(re.Sub[0])
		for _, sub := range re.Sub {
			n = min(n, shortest(sub))
		}
		return n
	}
	n := 0
	for _, sub := range re.Sub {
		n += shortest(sub)
	}
	return n
}

// characters are the ranges of characters in what re matches.
func characters(re *syntax.Regexp) (ranges []rune) {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			ranges = append(ranges, r, r)
		}
	case syntax.OpCharClass:
		ranges = append(ranges, re.Rune...)
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		ranges = append(ranges, 0, '\n'-1, '\n'+1, 0x10ffff) // "(.|\n)*" is in common use
		if re.Op == syntax.OpAnyChar {
			ranges = append(ranges, '\n', '\n')
		}
	}
	for _, sub := range re.Sub {
		ranges = append(ranges, characters(sub)...)
	}
	return ranges
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
