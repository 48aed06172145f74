package web

import (
	"errors"
	"html"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"espalier/policy/auth"
	"espalier/web/console"
	"espalier/web/server"
	"espalier/web/signin"
)

// The names of the session's cookie. The former is one that browsers take over
// TLS only, and from this host only.
const (
	secureCookie = "__Host-espalier"
	plainCookie  = "espalier"
)

// sessionIDs are the sessions that a request may continue. A browser sends the
// cookies of every port of a host, so that there may be several.
func sessionIDs(r *http.Request) []string {
	var ids []string
	for _, name := range []string{secureCookie, plainCookie} {
		if name == plainCookie && r.TLS != nil {
			continue
		}
		for _, c := range r.CookiesNamed(name) {
			ids = append(ids, c.Value)
		}
	}
	return ids[:min(len(ids), 4)]
}

// setSession gives the browser a session in place of those it had.
func (g *gate) setSession(w http.ResponseWriter, r *http.Request, id string) {
	for _, old := range sessionIDs(r) {
		g.desk.SignOut(old)
	}
	// A reverse proxy may have taken the TLS away; the browser says what it uses.
	c := &http.Cookie{Name: plainCookie, Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if r.TLS != nil || strings.HasPrefix(r.Header.Get("Origin"), "https://") {
		c.Name, c.Secure = secureCookie, true
	}
	if id == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// signInPath is the sign-in page that leads on to next.
func signInPath(next string) string {
	if next == "/" {
		return "/signin"
	}
	return "/signin?" + url.Values{"next": {next}}.Encode()
}

// ownPath returns a path of this console to go on to; what is none is the first
// page.
func ownPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(u.Path, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

// comeAgain makes the browser ask for the same, as from here.
func comeAgain(w http.ResponseWriter, r *http.Request) {
	at := html.EscapeString(ownPath(r.URL.RequestURI()))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	io.WriteString(w, `<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=`+at+
		`"><title>Espalier</title><p><a href="`+at+`">Espalier</a></p></html>`)
}

// showSignIn is GET /signin.
func (g *gate) showSignIn(w http.ResponseWriter, r *http.Request) {
	next := ownPath(r.URL.Query().Get("next"))
	if who, err := g.identify(r); err == nil && who != nil {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	writePage(w, r, http.StatusOK, console.SignIn{Next: next, NoUsers: !g.desk.HasUsers()})
}

// signIn is POST /signin.
func (g *gate) signIn(w http.ResponseWriter, r *http.Request) {
	page := console.SignIn{Next: ownPath(r.PostFormValue("next")), Name: r.PostFormValue("name"), NoUsers: !g.desk.HasUsers()}
	id, who, err := g.desk.SignIn(r.Context(), server.Peer(r), page.Name, r.PostFormValue("password"))
	if err == nil {
		g.log.Info("signed in to the console", zap.String("who", who.Name), zap.String("role", string(who.Role)), zap.Stringer("from", server.Peer(r)))
		g.setSession(w, r, id)
		http.Redirect(w, r, page.Next, http.StatusSeeOther)
		return
	}
	// Never with the name, which may be a password.
	g.log.Warn("a sign-in to the console was refused", zap.Stringer("from", server.Peer(r)), zap.Error(err))
	status := http.StatusServiceUnavailable
	page.Problem = console.NotNow
	if errors.Is(err, auth.ErrWrong) {
		status = http.StatusUnauthorized
		page.Problem = console.WrongPassword
	} else if d, ok := errors.AsType[*auth.ThrottledError](err); ok {
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", retryAfter(d.Wait))
		l := console.Locale(console.LookOf(r).Lang)
		page.Problem = l.T(console.Throttled, l.Span(d.Wait.Truncate(time.Second)+time.Second))
	}
	writePage(w, r, status, page)
}

// retryAfter is a wait as Retry-After has it, in whole seconds.
func retryAfter(wait time.Duration) string { return strconv.Itoa(int(math.Ceil(wait.Seconds()))) }

// signOut is POST /signout.
func (g *gate) signOut(w http.ResponseWriter, r *http.Request) {
	g.setSession(w, r, "")
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
}

// showSetup is GET /setup?link=SECRET.
func (g *gate) showSetup(w http.ResponseWriter, r *http.Request) {
	link := r.URL.Query().Get("link")
	if !server.Peer(r).Unmap().IsLoopback() || g.desk.CheckLink(link) != nil {
		g.noSetup(w, r)
		return
	}
	writePage(w, r, http.StatusOK, console.SignIn{Setup: link})
}

func (g *gate) noSetup(w http.ResponseWriter, r *http.Request) {
	writePage(w, r, http.StatusGone, console.SignIn{NoUsers: !g.desk.HasUsers(), Problem: console.LinkIsOver})
}

// setUp is POST /setup, which makes the first user.
func (g *gate) setUp(w http.ResponseWriter, r *http.Request) {
	page := console.SignIn{Setup: r.PostFormValue("link"), Name: strings.TrimSpace(r.PostFormValue("name"))}
	password := r.PostFormValue("password")
	if !server.Peer(r).Unmap().IsLoopback() || g.desk.CheckLink(page.Setup) != nil {
		g.noSetup(w, r)
		return
	}
	if password != r.PostFormValue("again") {
		page.Problem = console.PasswordsVary
		writePage(w, r, http.StatusUnprocessableEntity, page)
		return
	}
	id, who, err := g.desk.SetUp(page.Setup, page.Name, password)
	if errors.Is(err, signin.ErrLink) {
		g.noSetup(w, r)
		return
	}
	if err != nil {
		page.Problem = strings.ToUpper(err.Error()[:1]) + err.Error()[1:] + "."
		writePage(w, r, http.StatusUnprocessableEntity, page)
		return
	}
	g.log.Info("the console's first user was made", zap.String("who", who.Name))
	g.setSession(w, r, id)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// writePage answers with a page for whoever has not signed in.
func writePage(w http.ResponseWriter, r *http.Request, status int, page console.SignIn) {
	page.Look, page.Path = console.LookOf(r), "/signin"
	if r.Method == http.MethodGet {
		page.Path = ownPath(r.URL.RequestURI())
	}
	page.Problem = console.Locale(page.Lang).T(page.Problem)
	page.Write(w, status)
}

// setPreferences is POST /preferences: how this browser wants pages. It changes
// nothing here, so that it needs no sign-in.
func setPreferences(w http.ResponseWriter, r *http.Request) {
	keep := func(name, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			return
		}
		http.SetCookie(w, &http.Cookie{
			Name: name, Value: value, Path: "/", MaxAge: 365 * 24 * 60 * 60,
			HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
		})
	}
	keep(console.LangCookie, r.PostFormValue("lang"), console.Languages...)
	keep(console.ThemeCookie, r.PostFormValue("theme"), "light", "dark", "system")
	http.Redirect(w, r, ownPath(r.PostFormValue("next")), http.StatusSeeOther)
}
