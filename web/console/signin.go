package console

import (
	_ "embed"
	"html/template"
	"io"
)

//go:embed signin.html
var signInHTML string

var signInPage = template.Must(template.New("signin").Parse(signInHTML))

// SignIn is the page for whoever has not signed in.
type SignIn struct {
	Next    string // where to go on to
	Name    string // as it was typed
	Problem string // why it was refused; empty before the first try
	NoUsers bool   // nobody could sign in yet
	Setup   string // secret of the setup link that makes the first user; empty for others
}

// Render writes the page.
func (s SignIn) Render(w io.Writer) error { return signInPage.Execute(w, s) }
