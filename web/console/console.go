// Package console renders the pages that an administrator looks at: HTML made on
// the server that can be read without scripts, in the reader's language, with
// nothing from elsewhere.
package console

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"path"
	"sync"
	"time"
)

//go:embed assets
var assets embed.FS

//go:embed templates
var templateFiles embed.FS

// ServeAsset serves what the pages refer to, /assets/{file}.
func ServeAsset(w http.ResponseWriter, r *http.Request) {
	file := r.PathValue("file")
	content, err := assets.ReadFile("assets/" + file)
	if err != nil {
		http.Error(w, "There is no such file.", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", contentTypes[path.Ext(file)])
	w.Write(content)
}

// contentTypes does not leave to the system what files are served as.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	".js": "text/javascript; charset=utf-8", ".txt": "text/plain; charset=utf-8",
}

// A Page is what all pages have, around what one shows.
type Page struct {
	Look
	Area  string // the entry of the navigation that it belongs to
	Title string // as the locale has it; empty: the name of the area
	Path  string // with query
	User  User
	// Node and Version are those of the process, and Now its time.
	Node, Version string
	Now           time.Time
	Draining      bool
	Overloaded    string // why; empty where it is not
	ConfigOK      bool
	Data          any // Overview, Logs, …
}

// Look is how a reader wants pages.
type Look struct {
	Lang  string // one of Languages
	Theme string // light or dark; empty: as the system has it
}

// User is who looks at the page.
type User struct {
	Name, Role string
	Admin      bool
	// CSRF is what a form repeats in its field csrf, and a script in the header
	// X-CSRF-Token. It is empty for API tokens.
	CSRF string
}

// An Area is an entry of the navigation.
type Area struct{ ID, Path, Name string }

// Areas are those of the navigation, in order.
var Areas = []Area{
	{"overview", "/", "Overview"},
	{"services", "/services", "Services"},
	{"logs", "/logs", "Access log"},
	{"policy", "/policy", "Policy"},
	{"pac", "/pac", "PAC and profiles"},
	{"inspection", "/inspection", "Inspection"},
	{"doctor", "/doctor", "Doctor"},
	{"settings", "/settings", "Settings"},
}

// AreaName is the English name of the page's area.
func (p Page) AreaName() string {
	for _, a := range Areas {
		if a.ID == p.Area {
			return a.Name
		}
	}
	return ""
}

// templates are the templates by language and name. They are parsed when the first is
// shown, for most commands of the program show none.
var templates = sync.OnceValue(func() map[string]map[string]*template.Template {
	return parse("overview", "services", "service", "logs", "record", "policy", "pac", "inspection", "doctor", "settings", "notice")
})

func parse(names ...string) map[string]map[string]*template.Template {
	all := map[string]map[string]*template.Template{}
	for _, lang := range Languages {
		common := template.Must(template.New("").Funcs(Locale(lang).funcs()).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html"))
		all[lang] = map[string]*template.Template{}
		for _, name := range names {
			all[lang][name] = template.Must(template.Must(common.Clone()).ParseFS(templateFiles, "templates/"+name+".html"))
		}
		all[lang]["signin"] = template.Must(template.Must(common.Clone()).ParseFS(templateFiles, "templates/signin.html"))
	}
	return all
}

// Render writes the page of that name.
func Render(w io.Writer, name string, page Page) error {
	return render(w, name, page.Lang, "layout", page)
}

func render(w io.Writer, name, lang, block string, data any) error {
	t := templates()[lang][name]
	if t == nil {
		return fmt.Errorf("there is no page %q in language %q", name, lang)
	}
	return t.ExecuteTemplate(w, block, data)
}
