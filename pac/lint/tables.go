package lint

import (
	"regexp"
	"strings"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
	"github.com/dop251/goja/token"

	"espalier/pac"
)

// definitions reports functions of the outer level that are defined again: the last
// definition counts, wherever the first is.
func (c *checker) definitions(tree *ast.Program) {
	defined := map[string]bool{}
	define := func(name string, idx file.Idx) {
		if defined[name] {
			c.at("redefined", idx, Error, "%s is defined again: this definition replaces the earlier one", name)
		}
		defined[name] = true
	}
	for _, statement := range tree.Body {
		switch s := statement.(type) {
		case *ast.FunctionDeclaration:
			if s.Function.Name != nil {
				define(s.Function.Name.Name.String(), s.Function.Name.Idx)
			}
		case *ast.VariableStatement:
			for _, b := range s.List {
				id, ok := b.Target.(*ast.Identifier)
				if _, function := b.Initializer.(*ast.FunctionLiteral); ok && (function || b.Initializer != nil && defined[id.Name.String()]) {
					define(id.Name.String(), id.Idx)
				}
			}
		}
	}
	pac.Walk(tree, func(n any) bool {
		if a, ok := n.(*ast.AssignExpression); ok {
			if id := assigned(a.Left); id != nil && (id.Name == "FindProxyForURL" || defined[id.Name.String()]) {
				define(id.Name.String(), id.Idx)
			}
		}
		return true
	})
}

// assigned returns the name that an assignment defines: x, or x of this.x; nil if it
// defines none.
func assigned(left ast.Expression) *ast.Identifier {
	switch left := left.(type) {
	case *ast.Identifier:
		return left
	case *ast.DotExpression:
		if _, ok := left.Left.(*ast.ThisExpression); ok {
			return &left.Identifier
		}
	}
	return nil
}

// inherited are hosts with a label that every object of JavaScript has as a property,
// and ordinary ones in place of them.
var inherited = [][2]string{
	{"constructor", "constructer"}, {"constructor.example", "constructer.example"}, {"www.constructor", "www.constructer"},
	{"www.constructor.example", "www.constructer.example"}, {"www.constructor.com", "www.constructer.com"}, {"__proto__", "__proton__"},
}

var inProperty = regexp.MustCompile(`constructor|__proto__`)

// tables reports objects that are used as tables, if a host that is named as a
// property of every object gets an answer of its own.
func (c *checker) tables(js *pac.Evaluator, tree *ast.Program) {
	for _, pair := range inherited {
		odd, plain := "https://"+pair[0]+"/", "https://"+pair[1]+"/"
		a, b := js.Meaning(odd, pair[0]), js.Meaning(plain, pair[1])
		if js.TooSlow() {
			return
		}
		property := inProperty.FindString(pair[0])
		if a == b || strings.Contains(c.src, property) { // the script may mean the host
			continue
		}
		places := lookups(tree)
		if len(places) == 0 {
			places = []file.Idx{0}
		}
		for _, idx := range places {
			const format = "an object as a table: it has properties of its own, so that %s gets %q and %s gets %q; add a text to the keys, or ask hasOwnProperty"
			if idx == 0 {
				c.add("table", 0, 0, Error, format, odd, a, plain, b)
			} else {
				c.at("table", idx, Error, format, odd, a, plain, b)
			}
		}
		return
	}
}

// lookups are the places where the key of a table is an expression.
func lookups(tree *ast.Program) (places []file.Idx) {
	tables, written := map[string]bool{}, map[ast.Expression]bool{}
	table := func(target any, value ast.Expression) {
		if id, ok := target.(*ast.Identifier); ok {
			switch value.(type) {
			case *ast.ObjectLiteral, *ast.NewExpression:
				tables[id.Name.String()] = true
			}
		}
	}
	pac.Walk(tree, func(n any) bool {
		switch n := n.(type) {
		case *ast.Binding:
			table(n.Target, n.Initializer)
		case *ast.AssignExpression:
			table(n.Left, n.Right)
			written[n.Left] = true
		}
		return true
	})
	lookup := func(of, key ast.Expression) {
		switch key.(type) {
		case *ast.StringLiteral, *ast.NumberLiteral:
			return
		}
		if id, ok := of.(*ast.Identifier); ok && tables[id.Name.String()] {
			places = append(places, id.Idx)
		}
	}
	pac.Walk(tree, func(n any) bool {
		switch n := n.(type) {
		case *ast.BracketExpression:
			if !written[n] {
				lookup(n.Left, n.Member)
			}
		case *ast.BinaryExpression:
			if n.Operator == token.IN {
				lookup(n.Right, n.Left)
			}
		}
		return true
	})
	return places
}
