package lint

import (
	"regexp"
	"strings"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
	"github.com/dop251/goja/token"

	"espalier/pac"
)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

func (c *checker) position(idx file.Idx) file.Position {
	return c.file.Position(int(idx) - c.file.Base())
}

// at is add for a place in the program.
func (c *checker) at(kind string, idx file.Idx, severity, format string, args ...any) {
	p := c.position(idx)
	c.add(kind, p.Line, p.Column, severity, format, args...)
}

// A scope is what the var and function declarations of a function, or of the
// outer level, declare; ES3 has no others.
type scope struct {
	names map[string]bool
	outer *scope // nil for the outer level
}

// of returns the scope that declares name, nil for none.
func (s *scope) of(name string) *scope {
	for ; s != nil; s = s.outer {
		if s.names[name] {
			return s
		}
	}
	return nil
}

// program checks all of the tree.
func (c *checker) program(tree *ast.Program) {
	global := &scope{names: map[string]bool{}}
	for _, statement := range tree.Body {
		global.declare(statement)
	}
	for name := range global.names {
		if _, ok := pac.BrowserFunctions[name]; ok {
			c.add("redefined", 0, 0, Warning, "the script declares %s, which every browser has", name)
		}
	}
	if !global.names["FindProxyForURL"] {
		c.add("missing", 0, 0, Error, "the script declares no FindProxyForURL")
	}
	if global.names["FindProxyForURLEx"] {
		c.add("unsupported", 0, 0, Error, "the script declares FindProxyForURLEx, which some systems prefer and Apple's do not know: they would differ")
	}
	c.definitions(tree)
	w := &walker{checker: c, scope: global}
	w.walk(tree.Body)
}

// declare adds what n declares outside of functions in it.
func (s *scope) declare(n ast.Node) {
	pac.Walk(n, func(n any) bool {
		switch n := n.(type) {
		case *ast.FunctionDeclaration:
			s.names[n.Function.Name.Name.String()] = true
			return false
		case *ast.ClassDeclaration:
			s.names[n.Class.Name.Name.String()] = true
			return false
		case *ast.FunctionLiteral, *ast.ArrowFunctionLiteral, *ast.ClassLiteral:
			return false
		case *ast.Binding:
			s.bind(n.Target)
		case *ast.ForDeclaration:
			s.bind(n.Target)
		case *ast.CatchStatement: // its own scope in truth
			s.bind(n.Parameter)
		}
		return true
	})
}

// bind adds the names of a target; those in patterns, which ES3 has not, too.
func (s *scope) bind(target any) {
	if target == nil {
		return
	}
	pac.Walk(target, func(n any) bool {
		switch n := n.(type) {
		case *ast.Identifier:
			s.names[n.Name.String()] = true
		case *ast.PropertyShort:
			s.names[n.Name.Name.String()] = true
		}
		return true
	})
}

var laterNumber = regexp.MustCompile(`(?i)^0[bo]|_|n$`)

type walker struct {
	*checker
	scope *scope
}

func (w *walker) walk(n any) { pac.Walk(n, w.node) }

// later says that ES3 has no such thing.
func (w *walker) later(idx file.Idx, what string) {
	w.at("es3", idx, Error, "%s is not ES3, which is all that every engine takes", what)
}

// node checks one node and reports whether to go on into it.
func (w *walker) node(n any) bool {
	switch n := n.(type) {
	case *ast.FunctionDeclaration:
		w.function(n.Function)
		return false
	case *ast.FunctionLiteral:
		w.function(n)
		return false
	case *ast.ArrowFunctionLiteral:
		w.later(n.Start, "=>")
		return false
	case *ast.ClassDeclaration:
		w.later(n.Class.Class, "class")
		return false
	case *ast.ClassLiteral:
		w.later(n.Class, "class")
		return false
	case *ast.LexicalDeclaration:
		w.later(n.Idx, n.Token.String())
	case *ast.ForLoopInitializerLexicalDecl:
		w.later(n.LexicalDeclaration.Idx, n.LexicalDeclaration.Token.String())
	case *ast.ForDeclaration:
		w.later(n.Idx, "let or const")
	case *ast.ForOfStatement:
		w.later(n.For, "for … of")
	case *ast.TemplateLiteral:
		w.later(n.OpenQuote, "a template")
	case *ast.SpreadElement:
		w.later(n.Expression.Idx0(), "...")
	case *ast.ArrayPattern:
		w.later(n.LeftBracket, "taking an array apart")
	case *ast.ObjectPattern:
		w.later(n.LeftBrace, "taking an object apart")
	case *ast.OptionalChain:
		w.later(n.Expression.Idx0(), "?.")
	case *ast.YieldExpression:
		w.later(n.Yield, "yield")
	case *ast.AwaitExpression:
		w.later(n.Await, "await")
	case *ast.MetaProperty:
		w.later(n.Idx, "new.target")
	case *ast.PropertyShort:
		w.later(n.Name.Idx, "a property without a value")
		w.reference(&n.Name)
	case *ast.PropertyKeyed:
		w.property(n)
	case *ast.ObjectLiteral:
		w.trailingComma(n.RightBrace)
	case *ast.ArrayLiteral:
		w.trailingComma(n.RightBracket)
	case *ast.NumberLiteral:
		if laterNumber.MatchString(n.Literal) {
			w.later(n.Idx, "the number "+n.Literal)
		}
	case *ast.RegExpLiteral:
		w.ascii(n.Idx, n.Literal)
		w.pattern(n.Idx, n.Literal, n.Pattern)
		if strings.Trim(n.Flags, "gim") != "" || strings.Contains(n.Pattern, "(?<") {
			w.later(n.Idx, "the regular expression "+n.Literal)
		}
	case *ast.StringLiteral:
		w.ascii(n.Idx, n.Literal)
		p := w.position(n.Idx)
		w.literal(p.Line, p.Column, n.Value.String())
	case *ast.Identifier:
		w.reference(n)
	case *ast.DotExpression:
		if name := n.Identifier.Name.String(); reserved[name] {
			w.later(n.Identifier.Idx, "the property name "+name)
		}
	case *ast.BinaryExpression:
		switch n.Operator {
		case token.EXPONENT, token.COALESCE:
			w.later(n.Left.Idx0(), n.Operator.String())
		}
	case *ast.AssignExpression:
		switch n.Operator {
		case token.EXPONENT, token.COALESCE, token.LOGICAL_AND, token.LOGICAL_OR:
			w.later(n.Left.Idx0(), n.Operator.String()+"=")
		}
		w.assigned(n.Left)
	case *ast.ForIntoExpression:
		w.assigned(n.Expression)
	case *ast.UnaryExpression:
		switch n.Operator {
		case token.INCREMENT, token.DECREMENT:
			w.assigned(n.Operand)
		case token.TYPEOF: // may ask for what is not there
			_, name := n.Operand.(*ast.Identifier)
			return !name
		}
	case *ast.NewExpression:
		w.patternOf(n.Callee, n.ArgumentList)
	case *ast.CallExpression:
		w.trailingComma(n.RightParenthesis)
		w.call(n)
	case *ast.LabelledStatement:
		w.walk(n.Statement)
		return false
	case *ast.BranchStatement:
		return false
	case *ast.WithStatement:
		w.at("scope", n.With, Error, "with makes names mean what an object has")
	}
	return true
}

func (w *walker) function(f *ast.FunctionLiteral) {
	if f.Async || f.Generator {
		w.later(f.Function, "such a function")
	}
	inner := &scope{names: map[string]bool{}, outer: w.scope}
	for _, b := range f.ParameterList.List {
		inner.bind(b.Target)
		if b.Initializer != nil {
			w.later(b.Initializer.Idx0(), "the default of a parameter")
		}
	}
	if f.ParameterList.Rest != nil {
		w.later(f.ParameterList.Rest.Idx0(), "...")
		inner.bind(f.ParameterList.Rest)
	}
	w.trailingComma(f.ParameterList.Closing)
	if f.Name != nil {
		name := f.Name.Name.String()
		if w.scope.outer == nil && name == "FindProxyForURL" && len(f.ParameterList.List) != 2 {
			w.at("missing", f.Name.Idx, Error, "FindProxyForURL has %d parameters in place of url and host", len(f.ParameterList.List))
		}
		w.ascii(f.Name.Idx, name)
		inner.names[name] = true
	}
	inner.declare(f.Body)
	(&walker{checker: w.checker, scope: inner}).walk(f.Body)
}

func (w *walker) property(p *ast.PropertyKeyed) {
	switch {
	case p.Computed:
		w.later(p.Key.Idx0(), "a computed property name")
	case p.Kind != ast.PropertyKindValue:
		w.later(p.Key.Idx0(), "a "+string(p.Kind)+" property")
	default:
		// A name without quotes comes as a string too.
		if key, ok := p.Key.(*ast.StringLiteral); ok && reserved[key.Literal] {
			w.later(key.Idx, "the property name "+key.Literal+" without quotes")
		}
	}
}

// trailingComma looks for a comma in front of the closing bracket at idx.
func (w *walker) trailingComma(idx file.Idx) {
	end := int(idx) - w.file.Base()
	if end < 0 || end > len(w.src) {
		return
	}
	before := strings.TrimRight(w.src[:end], " \t\r\n")
	if strings.HasSuffix(before, ",") {
		w.at("comma", file.Idx(len(before)-1+w.file.Base()), Error, "a comma with nothing behind it, of which engines make different things")
	}
}

// ascii checks the text of a name or literal at idx.
func (w *walker) ascii(idx file.Idx, text string) {
	if i := strings.IndexFunc(text, func(r rune) bool { return r >= 0x80 }); i >= 0 && w.encoding == "" {
		p := w.file.Position(int(idx) - w.file.Base())
		w.oddLines[p.Line] = true
		w.at("non-ascii", idx, Error, "%s is not ASCII: how it is read depends on the engine", text)
	}
}

// reference checks the use of a name.
func (w *walker) reference(n *ast.Identifier) {
	name := n.Name.String()
	w.ascii(n.Idx, name)
	_, browser := pac.BrowserFunctions[name]
	objection, known := discouraged[name]
	switch {
	case w.scope.of(name) != nil, w.undeclared[name]:
	case known && mildly[name]:
		w.at(objection.kind, n.Idx, Warning, "%s %s", name, objection.text)
	case known:
		w.at(objection.kind, n.Idx, Error, "%s %s", name, objection.text)
	case browser, builtins[name]:
	case later[name]:
		w.later(n.Idx, name)
	default:
		w.at("name", n.Idx, Error, "%s is not defined, neither here nor by browsers", name)
	}
}

// assigned checks what is assigned to.
func (w *walker) assigned(target ast.Expression) {
	id, ok := target.(*ast.Identifier)
	if !ok {
		return
	}
	switch at := w.scope.of(id.Name.String()); {
	case at == nil:
		w.undeclared[id.Name.String()] = true
		w.at("scope", id.Idx, Error, "%s is assigned to, but no var declares it", id.Name)
	case at.outer == nil && w.scope.outer != nil:
		w.at("global", id.Idx, Warning, "%s, which is global, is changed in a function: engines run several copies of a script, in no certain order", id.Name)
	}
}

// call checks the name of a method that is called.
func (w *walker) call(n *ast.CallExpression) {
	w.patternOf(n.Callee, n.ArgumentList)
	dot, ok := n.Callee.(*ast.DotExpression)
	if !ok {
		return
	}
	name := dot.Identifier.Name.String()
	if laterMethods[name] {
		w.at("es3", dot.Identifier.Idx, Warning, "%s came after ES3, and old engines do not have it", name)
	}
}
