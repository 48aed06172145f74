package refusal

import (
	"net/http"
	"strconv"

	"espalier/proxy/page"
)

// ProxyName is this proxy in Proxy-Status (RFC 9209) and Via.
const ProxyName = "espalier"

// A Notice is what a refused client is told beside the refusal itself. Empty
// fields are left out.
type Notice struct {
	Accept, AcceptLanguage string // of the request
	Host                   string // of the destination
	Rule                   string // that denied it
	Reference              string // id of the access record
	Contact                string // shown to users, in the administrator's words
	Setup                  string // where to set the device up
}

// Render returns the header fields and the body of r. The body is a page if the
// client accepts HTML, else a short text.
func (r Refusal) Render(n Notice) (http.Header, string) {
	h := http.Header{}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Proxy-Status", ProxyName+"; error="+r.Type+r.Params)
	if r.IsLimit() {
		h.Set("Retry-After", "10")
	}
	var body string
	if page.Wanted(n.Accept) {
		p := page.Page{
			Language: page.Language(n.AcceptLanguage), Status: r.Status, Text: r.Text,
			Host: n.Host, Rule: n.Rule, Reference: n.Reference, Contact: n.Contact, Setup: n.Setup,
		}
		if text := swedish[r.Text]; p.Language == "sv" && text != "" {
			p.Text = text
		}
		page.SetHeader(h)
		body = string(p.HTML())
	} else {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		body = strconv.Itoa(r.Status) + " " + http.StatusText(r.Status) + "\n\n" + r.Text + "\n"
		for _, line := range [...]struct{ name, value string }{{"Rule", n.Rule}, {"Reference", n.Reference}, {"Contact", n.Contact}, {"Setup", n.Setup}} {
			if line.value != "" {
				body += line.name + ": " + line.value + "\n"
			}
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	return h, body
}
