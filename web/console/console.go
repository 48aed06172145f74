// Package console renders the pages that an administrator looks at: HTML made on
// the server, with styles of its own, no script, and nothing from elsewhere.
package console

import (
	"embed"
	"html/template"
	"io"
	"net/http"
	"path"
	"time"
)

//go:embed assets
var assets embed.FS

//go:embed overview.html
var overviewHTML string

var overviewPage = template.Must(template.New("overview").Funcs(template.FuncMap{
	"utc": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"iso": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
}).Parse(overviewHTML))

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

// contentTypes does not leave to the system what the styles are served as.
var contentTypes = map[string]string{".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

// Overview is what the first page shows, ready for reading.
type Overview struct {
	User          User
	Version, Node string
	Now, Started  time.Time
	Uptime        string
	Draining      bool
	Overloaded    string // why; empty where it is not
	PACURL, Proxy string // empty where there is none
	Listeners     []Listener
	Config        Config
	Lists         []List
	CA            []string // what must be done about the interception CA
	ProxiesDown   []ProxyDown
	Fetches       []Fetches  // of the PAC script
	AccessLog     *AccessLog // nil: it is written, and always was

	Up, Down, Requests, Tunnels string
	AppleShare                  string    // of the bytes; empty before the first byte
	Services                    []Service // those with traffic, the most bytes first
	Quiet                       []Service // the others
	Actions                     []Action
}

// User is who looks at the page.
type User struct {
	Name, Role string
	Admin      bool
	// CSRF is what a form repeats in its field csrf, and a script in the header
	// X-CSRF-Token. It is empty for API tokens.
	CSRF string
}

// Listener is an address that the process listens at.
type Listener struct{ Purpose, Address string }

// AccessLog is what went wrong with writing access records.
type AccessLog struct {
	Error string    // empty: it is written again
	Since time.Time // of Error
	Lost  string    // records, since the start
	Some  bool      // Lost is not 0
}

// Config is how the last reading of the configuration went.
type Config struct {
	File      string // empty for the embedded default
	OK        bool
	Problems  []string
	Tried     time.Time
	TriedAgo  string
	Loaded    time.Time // the configuration in force
	LoadedAgo string
}

// List is a list of hosts that rules name.
type List struct {
	Name, Source string
	Entries      string
	BadLines     string // empty for none
	Loaded       time.Time
	LoadedAgo    string // empty: not loaded, so that it matches nothing
	Stale        bool
	Error        string // of the last try; empty where it succeeded
}

// ProxyDown is a proxy of the PAC script that takes no connections.
type ProxyDown struct {
	Proxy, Error string
	Since        time.Time
}

// Fetches are how often a kind of client has fetched the script of a site.
type Fetches struct {
	Site, Agent, Count string
	Last               time.Time
	LastAgo            string
}

// Service is a row of the traffic table.
type Service struct {
	ID, Name string
	Apple    bool
	Share    string
	Width    float64 // of the bar, in hundredths
	Up, Down string
	Requests string
	Tunnels  string
	Errors   string
	Failed   bool // some requests did
}

// Action is what was done with requests, and with how many.
type Action struct {
	ID, Meaning   string
	Count, Share  string
	Offset, Width float64 // of its part of the bar, in hundredths
}

// Render writes the overview page.
func Render(w io.Writer, page Overview) error { return overviewPage.Execute(w, page) }
