package pac

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/parser"
)

// lint returns what old or strict engines would not take in a script: anything
// outside ES3 and its library, a byte outside ASCII, a call of what is neither
// defined in the script nor a method listed here. The functions that browsers
// offer to PAC scripts are among what is not.
func lint(script []byte) []string {
	var faults []string
	for i, c := range script {
		if c != '\n' && (c < ' ' || c > '~') {
			faults = append(faults, fmt.Sprintf("byte %d is %#x", i, c))
		}
	}
	program, err := parser.ParseFile(nil, "proxy.pac", string(script), 0)
	if err != nil {
		return append(faults, err.Error())
	}
	// The tree does not show these.
	bare := regexp.MustCompile(`"(\\.|[^"\\])*"|//[^\n]*`).ReplaceAllString(string(script), `""`)
	if m := regexp.MustCompile(`,\s*[\])}]|\*\*|\?[?.]`).FindString(bare); m != "" {
		faults = append(faults, m)
	}
	nodes := []string{
		"AssignExpression", "ArrayLiteral", "BadStatement", "BinaryExpression", "Binding", "BlockStatement", "BracketExpression",
		"BranchStatement", "CallExpression", "ConditionalExpression", "DotExpression", "ExpressionStatement",
		"ForLoopInitializerExpression", "ForStatement", "FunctionDeclaration", "FunctionLiteral", "Identifier", "IfStatement",
		"NumberLiteral", "ObjectLiteral", "RegExpLiteral", "ReturnStatement", "StringLiteral", "UnaryExpression", "VariableStatement",
	}
	methods := []string{"charAt", "charCodeAt", "indexOf", "lastIndexOf", "length", "split", "substring", "test", "toLowerCase", "toString"}
	functions := []string{"String"}
	walk(reflect.ValueOf(program.Body), func(n any) {
		if f, ok := n.(*ast.FunctionDeclaration); ok {
			functions = append(functions, f.Function.Name.Name.String())
		}
	})
	walk(reflect.ValueOf(program.Body), func(n any) {
		switch n := n.(type) {
		case *ast.DotExpression:
			if name := n.Identifier.Name.String(); !slices.Contains(methods, name) {
				faults = append(faults, "property "+name)
			}
		case *ast.CallExpression:
			switch callee := n.Callee.(type) {
			case *ast.DotExpression:
			case *ast.Identifier:
				if name := callee.Name.String(); !slices.Contains(functions, name) {
					faults = append(faults, "call of "+name)
				}
			default:
				faults = append(faults, fmt.Sprintf("call of a %T", callee))
			}
		}
		name := reflect.TypeOf(n).Elem().Name()
		if !slices.Contains(nodes, name) {
			faults = append(faults, "a "+name)
		}
	})
	return faults
}

// walk calls f for every statement and expression below v.
func walk(v reflect.Value, f func(any)) {
	switch v.Kind() {
	case reflect.Interface:
		walk(v.Elem(), f)
	case reflect.Pointer:
		if v.IsNil() || v.Type().Elem().PkgPath() != reflect.TypeFor[ast.Program]().PkgPath() {
			return
		}
		_, statement := v.Interface().(ast.Statement)
		_, expression := v.Interface().(ast.Expression)
		if statement || expression {
			f(v.Interface())
		}
		walk(v.Elem(), f)
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; v.Type().Field(i).IsExported() && name != "DeclarationList" {
				walk(v.Field(i), f)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			walk(v.Index(i), f)
		}
	}
}

func TestScriptIsES3(t *testing.T) {
	for _, e := range engines {
		body := script(t, compile(t, e.cfg, e.apple), "", "192.0.2.1:3128").Body
		for _, fault := range lint(body) {
			t.Errorf("%s: %s", e.name, fault)
		}
		for _, line := range strings.Split(string(body), "\n") {
			if len(line) > 120 {
				t.Errorf("%s: a line of %d characters: %s", e.name, len(line), line)
			}
		}
	}
}

func TestLintFinds(t *testing.T) {
	for _, c := range []string{
		`let a = 1;`, `const a = 1;`, "var a = `x`;", `var f = () => 1;`, `var a = [1, ];`, `var a = {x: 1,};`,
		`var a = "b"; a.trim();`, `shExpMatch(host, "*.apple.com");`, `isInNet(host, "17.0.0.0", "255.0.0.0");`,
		`dnsResolve(host);`, `myIpAddress();`, `alert(host);`, `var a = "é";`, `for (var a of b) {}`, `class A {}`,
		`(function () {})();`, `var {a} = b;`, `throw 1;`, `a.forEach(f);`, `var a = 1` + "\t" + `;`, `a?.b;`, `a ** b`,
	} {
		if len(lint([]byte(c))) == 0 {
			t.Errorf("no fault found in %s", c)
		}
	}
}
