package proxy

import (
	"net/http"
	"strconv"
	"strings"

	"espalier/policy"
	"espalier/proxy/page"
)

// tell sets in h what an answer by r has to say, and returns its body: what a
// person is told, and where the administrator has to look. It is a page where
// x.asked wants one, else a short text.
func (x *exchange) tell(r refusal, h http.Header) string {
	contact := x.s.state.Load().Contact
	rule := ""
	if x.rec.Action == policy.Deny {
		rule = x.rec.Rule
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Proxy-Status", proxyName+"; error="+r.proxyError)
	if r.isLimit() {
		h.Set("Retry-After", "10")
		h.Set("Connection", "close")
	}
	var body string
	if page.Wanted(strings.Join(x.asked["Accept"], ",")) {
		p := page.Page{
			Language: page.Language(strings.Join(x.asked["Accept-Language"], ",")), Status: r.status, Text: r.text,
			Host: x.target.Host, Rule: rule, Reference: x.rec.ID.String(), Contact: contact,
		}
		if text := swedish[r.text]; p.Language == "sv" && text != "" {
			p.Text = text
		}
		page.SetHeader(h)
		body = string(p.HTML())
	} else {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		body = strconv.Itoa(r.status) + " " + http.StatusText(r.status) + "\n\n" + r.text + "\n"
		if rule != "" {
			body += "Rule: " + rule + "\n"
		}
		body += "Reference: " + x.rec.ID.String() + "\n"
		if contact != "" {
			body += "Contact: " + contact + "\n"
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	return body
}
