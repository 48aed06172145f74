package console

import (
	"io"
	"net/http"
)

// SignIn is the page for whoever has not signed in.
type SignIn struct {
	Look
	Next    string // where to go on to
	Name    string // as it was typed
	Problem string // why it was refused, as the locale has it; empty before the first try
	NoUsers bool   // nobody could sign in yet
	Setup   string // secret of the setup link that makes the first user; empty for others
	Path    string // to come back to when the language is changed
}

// Write answers with the page.
func (s SignIn) Write(w http.ResponseWriter, status int) {
	write(w, status, func(text io.Writer) error { return render(text, "signin", s.Lang, "signin", s) })
}

// Notice is a page that says that there is nothing to see, and why.
type Notice struct{ Text string }
