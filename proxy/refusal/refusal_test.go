package refusal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"espalier/proxy/page"
)

// Every refusal can be told in Swedish.
func TestSwedish(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "refusal.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok || len(lit.Elts) != 4 {
			return true
		}
		text, err := strconv.Unquote(lit.Elts[3].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		seen[text] = true
		status, err := strconv.Atoi(lit.Elts[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if page := string(page.Page{Language: "sv", Status: status}.HTML()); strings.Contains(page, http.StatusText(status)) {
			t.Errorf("proxy/page has no title for %d", status)
		}
		if swedish[text] == "" {
			t.Errorf("swedish.go does not have %q", text)
		}
		return true
	})
	if len(seen) == 0 || len(seen) != len(swedish) {
		t.Errorf("swedish.go has %d texts, refusal.go %d", len(swedish), len(seen))
	}
}
