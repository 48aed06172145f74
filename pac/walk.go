package pac

import (
	"reflect"

	"github.com/dop251/goja/ast"
)

// Walk calls f for every node of a syntax tree of goja, a node before what it
// holds, and descends into a node if f returns true. Names that are no expressions
// (labels) are among the nodes.
func Walk(tree any, f func(node any) bool) { walk(reflect.ValueOf(tree), f) }

func walk(v reflect.Value, f func(any) bool) {
	switch v.Kind() {
	case reflect.Interface:
		walk(v.Elem(), f)
	case reflect.Pointer:
		if v.IsNil() || v.Type().Elem().PkgPath() != astPackage {
			return
		}
		if b, ok := v.Interface().(*ast.BinaryExpression); ok {
			walkChain(b, f)
		} else if f(v.Interface()) {
			walk(v.Elem(), f)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() && field.Name != "DeclarationList" {
				walk(v.Field(i), f)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			walk(v.Index(i), f)
		}
	}
}

// walkChain walks a chain of operators without recursion over its length.
func walkChain(b *ast.BinaryExpression, f func(any) bool) {
	var spine []*ast.BinaryExpression
	for f(b) {
		spine = append(spine, b)
		left, ok := b.Left.(*ast.BinaryExpression)
		if !ok {
			Walk(b.Left, f)
			break
		}
		b = left
	}
	for i := len(spine) - 1; i >= 0; i-- {
		Walk(spine[i].Right, f)
	}
}

var astPackage = reflect.TypeFor[ast.Program]().PkgPath()
