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
	"slices"
	"sync"
	"time"

	"espalier/pac/health"
	"espalier/policy/lists"
	"espalier/web/api"
	"espalier/web/signin"
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
	Area   string // the entry of the navigation that it belongs to
	Title  string // as the locale has it; empty: the name of the area
	Path   string // with query
	User   User
	Status api.Status // of the process
	Now    time.Time
	Data   any // Overview, Logs, …
}

// Look is how a reader wants pages.
type Look struct {
	Lang  string // one of Languages
	Theme string // light or dark; empty: as the system has it
}

// T is Locale.T in the language.
func (l Look) T(text string, args ...any) string { return Locale(l.Lang).T(text, args...) }

// User is who looks at the page. Its CSRF is what a form repeats in its field csrf,
// and a script in the header X-CSRF-Token.
type User struct {
	signin.Identity
	Admin bool
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

// templates are those of pages by language and name. They are parsed when the first
// is shown, for most commands of the program show none.
var templates = sync.OnceValue(func() map[string]map[string]*template.Template {
	all := map[string]map[string]*template.Template{}
	for _, lang := range Languages {
		common := template.Must(template.New("").Funcs(Locale(lang).funcs()).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html"))
		all[lang] = map[string]*template.Template{}
		for _, name := range []string{
			"overview", "services", "service", "logs", "record", "policy", "pac", "inspection", "doctor", "settings", "notice", "signin",
		} {
			all[lang][name] = template.Must(template.Must(common.Clone()).ParseFS(templateFiles, "templates/"+name+".html"))
		}
	}
	return all
})

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

// TLSWarnings say what must be done about the listeners' certificates.
func (p Page) TLSWarnings() (list []string) {
	for _, c := range p.Status.TLS {
		list = append(list, c.Warnings...)
	}
	return list
}

// ProxiesDown are the proxies of the PAC script that are not well.
func (p Page) ProxiesDown() []health.Status {
	return slices.DeleteFunc(slices.Clone(p.Status.PACProxies), func(x health.Status) bool { return x.Up })
}

// OverdueLists are the lists that were never loaded, or are stale.
func (p Page) OverdueLists() (all []lists.Status) {
	for _, l := range p.Status.Lists {
		if l.Overdue() {
			all = append(all, l)
		}
	}
	return all
}
