package pac

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
	"github.com/dop251/goja/parser"
	"github.com/dop251/goja/token"
)

// MaxInput is the size in bytes of the largest script that Espalier reads.
const MaxInput = 10 << 20

const (
	// maxNesting bounds how deep brackets nest.
	maxNesting = 1000
	// maxChain bounds how many operators, else-ifs and other parts follow each
	// other in one statement and in those around it. The parser and the compiler
	// recurse for each, and Go ends a process whose stack exceeds 1 GB.
	maxChain = 200_000
	// deepCost is what an arrow function counts for, since it recurses deeper, and
	// a label, since goja looks at all labels around it.
	deepCost = 100
	// maxUncertain is the size of a script that may hold what measure cannot read:
	// were all of it brackets, the stack would suffice.
	maxUncertain = 64 << 10
)

// A LimitError says which limit of this package a script exceeds.
type LimitError struct {
	Line, Column int // begin at 1; 0 for the script as a whole
	Message      string
}

func (e *LimitError) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// Parse returns the syntax tree of a script, in time linear in its size. Long
// chains of operators are regrouped, without a change of meaning, since the
// compiler takes time in the square of their length.
//
// The error is a parser.ErrorList or a LimitError, or says that the parser failed.
func Parse(script string) (tree *ast.Program, err error) {
	if len(script) > MaxInput {
		return nil, &LimitError{Message: fmt.Sprintf("the script has %d bytes (at most %d)", len(script), MaxInput)}
	}
	if err := measure(script); err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil { // goja's parser panics at some nonsense
			tree, err = nil, errors.New("the parser cannot read it")
		}
	}()
	tree, err = parser.ParseFile(nil, "proxy.pac", script, 0, parser.WithDisableSourceMaps)
	if err == nil {
		regroup(tree)
	}
	return tree, err
}

// measure reads the tokens of a script and returns an error if it nests deeper
// than the limits. It accepts scripts that are invalid otherwise.
func measure(src string) error {
	m := meter{src: src, levels: []level{{}}, last: operator}
	for m.at < len(src) {
		if err := m.token(); err != nil {
			p := file.NewFile("", src, 0).Position(min(m.at, len(src)))
			return &LimitError{p.Line, p.Column, err.Error()}
		}
	}
	return nil
}

// A level is a bracket that is open.
type level struct {
	open   byte
	head   bool // of if, for, while or with
	chain  int
	suffix int // parts of the chain that end with the operand: calls, indexes, properties
	asked  int // question marks without their colon
}

// What the last token was, as far as it tells what the next one means.
type lastToken int

const (
	operator  lastToken = iota // an operand follows
	value                      // an operand ended
	head                       // the head of if, for, while or with ended: a statement follows
	brace                      // } closed a block, a function or an object
	increment                  // ++ or --
	keyword                    // if, for, while or with: its head follows
	dot                        // a property name follows
	end                        // ; ended a statement
)

type meter struct {
	src    string
	at     int
	levels []level
	chain  int // of all levels
	last   lastToken
}

func (m *meter) link(n int) error {
	m.levels[len(m.levels)-1].chain += n
	if m.chain += n; m.chain > maxChain {
		return fmt.Errorf("a statement has more than %d parts; split it", maxChain)
	}
	return nil
}

// suffix is link for a part of an operand.
func (m *meter) suffix() error {
	m.levels[len(m.levels)-1].suffix++
	return m.link(1)
}

// operate is link for an operator, which ends the operand.
func (m *meter) operate() error {
	top := &m.levels[len(m.levels)-1]
	m.chain -= top.suffix
	top.chain -= top.suffix
	top.suffix = 0
	m.last = operator
	return m.link(1)
}

// begin begins a statement, or an element of a list.
func (m *meter) begin() {
	top := &m.levels[len(m.levels)-1]
	m.chain -= top.chain
	top.chain, top.suffix, top.asked = 0, 0, 0
}

func (m *meter) push(open byte) error {
	if len(m.levels) > maxNesting {
		return fmt.Errorf("brackets nest deeper than %d", maxNesting)
	}
	m.levels = append(m.levels, level{open: open, head: open == '(' && m.last == keyword})
	m.last = operator
	return nil
}

func (m *meter) pop() level {
	if len(m.levels) == 1 {
		return level{} // the parser reports the bracket
	}
	m.begin()
	top := m.levels[len(m.levels)-1]
	m.levels = m.levels[:len(m.levels)-1]
	return top
}

// uncertain is called where the meter may take code for text.
func (m *meter) uncertain(why string) error {
	if len(m.src) > maxUncertain {
		return fmt.Errorf("%s, in a script of more than %d bytes", why, maxUncertain)
	}
	return nil
}

func (m *meter) token() error {
	c := m.src[m.at]
	switch {
	case c <= ' ':
		m.at++
	case c == '/':
		return m.slash()
	case c == '"' || c == '\'':
		return m.quoted(c)
	case c == '`':
		m.at++
		m.operand()
		return m.template()
	case c == '(' || c == '[' || c == '{':
		m.at++
		if m.last == value && c != '{' || m.last == brace {
			if err := m.suffix(); err != nil {
				return err
			}
		}
		return m.push(c)
	case c == ')' || c == ']':
		m.at++
		m.last = value
		if m.pop().head {
			m.last = head
		}
	case c == '}':
		m.at++
		if m.pop().open == '`' {
			return m.template()
		}
		m.last = brace
	case c == ';':
		m.at++
		m.last = end
	case c == ',':
		m.at++
		m.begin()
		m.last = operator
	case c >= '0' && c <= '9', c == '.' && m.at+1 < len(m.src) && m.src[m.at+1] >= '0' && m.src[m.at+1] <= '9':
		m.number()
	case letter(c):
		return m.word()
	default:
		return m.operator()
	}
	return nil
}

// operand is called at a token that can begin a statement: behind a value it does.
func (m *meter) operand() {
	switch m.last {
	case value, brace, end, increment:
		m.begin()
	}
	m.last = value
}

// slash reads a comment, a regular expression or a division.
func (m *meter) slash() error {
	rest := m.src[m.at:]
	switch {
	case strings.HasPrefix(rest, "//"):
		if m.at += lineEnd(rest); m.at < len(m.src) && m.src[m.at] >= 0x80 {
			m.at += 3
		}
		return nil
	case strings.HasPrefix(rest, "/*"):
		if i := strings.Index(rest[2:], "*/"); i >= 0 {
			m.at += i + 4
		} else {
			m.at = len(m.src)
		}
		return nil
	}
	switch m.last {
	case brace, increment:
		if err := m.uncertain(`"/" may begin a regular expression or divide; put the expression in a variable`); err != nil {
			return err
		}
	case value:
		m.at++
		return m.operate()
	}
	m.operand()
	depth, class := 0, false
	for m.at++; m.at < len(m.src); m.at++ {
		switch c := m.src[m.at]; {
		case c == '\n' || c == '\r':
			return m.uncertain("a regular expression does not end")
		case c == '\\':
			m.at++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '(':
			if depth++; depth > maxNesting {
				return fmt.Errorf("a regular expression nests deeper than %d", maxNesting)
			}
		case c == ')':
			depth--
		case c == '/':
			m.at++
			return nil
		}
	}
	return nil
}

func (m *meter) quoted(quote byte) error {
	m.operand()
	for m.at++; m.at < len(m.src); m.at++ {
		switch m.src[m.at] {
		case quote:
			m.at++
			return nil
		case '\\':
			m.at++
			if strings.HasPrefix(m.src[min(m.at, len(m.src)):], "\r\n") {
				m.at++
			}
		case '\n', '\r':
			return m.uncertain("a string does not end")
		}
	}
	return nil
}

// template reads the text of a template up to its end or to an expression in it.
func (m *meter) template() error {
	for ; m.at < len(m.src); m.at++ {
		switch c := m.src[m.at]; {
		case c == '`':
			m.at++
			m.last = value
			return m.suffix() // it may be a function's
		case c == '\\':
			m.at++
		case c == '$' && strings.HasPrefix(m.src[m.at:], "${"):
			m.at += 2
			return m.push('`')
		}
	}
	return nil
}

func (m *meter) number() {
	m.operand()
	begin := m.at
	for m.at++; m.at < len(m.src); m.at++ {
		switch c := m.src[m.at]; {
		case c >= '0' && c <= '9', c == '.', c < 0x80 && c != '\\' && letter(c):
		case (c == '+' || c == '-') && m.src[m.at-1]|0x20 == 'e' && !strings.HasPrefix(m.src[begin:], "0x") && !strings.HasPrefix(m.src[begin:], "0X"):
		default:
			return
		}
	}
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '$' || c == '\\' || c >= 0x80
}

func (m *meter) word() error {
	if r, n := utf8.DecodeRuneInString(m.src[m.at:]); r == '\u2028' || r == '\u2029' || r == '\ufeff' || r == '\u00a0' {
		m.at += n
		return nil
	}
	begin := m.at
	for m.at++; m.at < len(m.src); m.at++ {
		if c := m.src[m.at]; !letter(c) && (c < '0' || c > '9') {
			break
		}
	}
	word := m.src[begin:m.at]
	last := m.last
	if last == dot { // whatever it is elsewhere
		m.last = value
		return nil
	}
	switch word {
	case "in", "instanceof", "of", "else", "catch", "finally":
		m.last = operator
		if word == "else" {
			return m.link(1)
		}
		if word == "of" {
			m.last = increment // it may be a name
		}
		return m.link(1)
	case "case", "default":
		m.begin()
		m.last = operator
		return nil
	case "if", "for", "while", "with", "do", "try", "switch", "return", "throw", "typeof", "new", "void", "delete", "function",
		"async", "await", "yield", "var", "let", "const", "class", "extends":
		m.operand()
		switch word {
		case "if", "for", "while", "with":
			m.last = keyword
		case "async", "await", "yield", "let":
			m.last = increment // they may be names
		default:
			m.last = operator
		}
		return m.link(1)
	}
	if last == keyword && word == "await" { // for await
		m.last = keyword
		return nil
	}
	m.operand()
	return nil
}

func (m *meter) operator() error {
	rest := m.src[m.at:]
	switch {
	case strings.HasPrefix(rest, "++"), strings.HasPrefix(rest, "--"):
		m.at += 2
		m.last = increment
		return m.link(1)
	case strings.HasPrefix(rest, "=>"):
		m.at += 2
		m.last = operator
		return m.link(deepCost)
	case rest[0] == '.', strings.HasPrefix(rest, "?."):
		m.at += strings.IndexByte(rest, '.') + 1
		m.last = dot
		return m.suffix()
	case strings.HasPrefix(rest, "<!--") || strings.HasPrefix(rest, "-->"):
		if err := m.uncertain("a comment of HTML"); err != nil {
			return err
		}
	}
	m.at++
	top := &m.levels[len(m.levels)-1]
	switch rest[0] {
	case '?':
		if m.at < len(m.src) && m.src[m.at] == '?' {
			m.at++
			break
		}
		top.asked++
	case ':':
		if top.asked--; top.asked < 0 { // of a label, a property or a case
			top.asked = 0
			m.last = operator
			return m.link(deepCost)
		}
	}
	for strings.IndexByte("=<>&|*%^", rest[0]) >= 0 && m.at < len(m.src) && strings.IndexByte("=<>&|*%^", m.src[m.at]) >= 0 && !strings.HasPrefix(m.src[m.at:], "=>") {
		m.at++
	}
	return m.operate()
}

// lineEnd is the length of the line that s begins with.
func lineEnd(s string) int {
	for i := 0; i < len(s); i++ {
		if s[i] == '\n' || s[i] == '\r' || strings.HasPrefix(s[i:], "\u2028") || strings.HasPrefix(s[i:], "\u2029") {
			return i
		}
	}
	return len(s)
}

// regrouped is the length of a chain of operators from which on it is regrouped.
const regrouped = 64

// regroup changes long chains of binary operators, which parse as (((a·b)·c)·d).
// Those that are associative become a balanced tree. In the others every 64th left
// operand x becomes "true ? x : 0", where the compiler does not look into it.
func regroup(tree *ast.Program) {
	Walk(tree, func(n any) bool {
		top, ok := n.(*ast.BinaryExpression)
		if !ok {
			return true
		}
		defer guardConstant(top)
		var spine []*ast.BinaryExpression // from the top down
		for b := top; ; {
			spine = append(spine, b)
			left, ok := b.Left.(*ast.BinaryExpression)
			if !ok || left.Operator != top.Operator && associative(top.Operator) {
				break
			}
			b = left
		}
		if len(spine) < regrouped {
			return true
		}
		if !associative(top.Operator) {
			for i := regrouped; i < len(spine); i += regrouped {
				b := spine[i-1]
				b.Left = opaque(b.Left, b.Right)
			}
			return true
		}
		operands := []ast.Expression{spine[len(spine)-1].Left}
		for i := len(spine) - 1; i >= 0; i-- {
			operands = append(operands, spine[i].Right)
		}
		half := len(operands) / 2
		top.Left, top.Right = balanced(top.Operator, operands[:half]), balanced(top.Operator, operands[half:])
		return true
	})
}

// opaque is x as "true ? x : ”", which the compiler does not look into. Its literals
// are at the place of near.
func opaque(x, near ast.Expression) ast.Expression {
	at := near.Idx0()
	return &ast.ConditionalExpression{
		Test: &ast.BooleanLiteral{Idx: at, Literal: "true", Value: true}, Consequent: x,
		Alternate: &ast.StringLiteral{Idx: at, Value: ""},
	}
}

// guardConstant keeps the compiler from finding out whether a logical expression is
// constant, for which it takes exponential time.
func guardConstant(b *ast.BinaryExpression) {
	if associative(b.Operator) && maybeConstant(b.Left) {
		b.Left = opaque(b.Left, b.Right)
	}
}

func maybeConstant(x ast.Expression) bool {
	switch x := x.(type) {
	case *ast.BinaryExpression:
		return maybeConstant(x.Right)
	case *ast.UnaryExpression:
		return maybeConstant(x.Operand)
	case *ast.BooleanLiteral, *ast.NullLiteral, *ast.NumberLiteral, *ast.StringLiteral:
		return true
	}
	return false
}

func associative(op token.Token) bool {
	return op == token.LOGICAL_OR || op == token.LOGICAL_AND || op == token.COALESCE
}

func balanced(op token.Token, operands []ast.Expression) ast.Expression {
	if len(operands) == 1 {
		return operands[0]
	}
	half := len(operands) / 2
	return &ast.BinaryExpression{Operator: op, Left: balanced(op, operands[:half]), Right: balanced(op, operands[half:])}
}
