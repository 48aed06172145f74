package web

import (
	"errors"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"espalier/policy/auth"
	"espalier/web/server"
	"espalier/web/signin"
)

// A gate lets those through who may.
type gate struct {
	desk *signin.Desk
	log  *zap.Logger
}

// require lets requests through of whoever has a role, and of those that change
// something only what is no forgery. It stands around the handler of each path,
// not in front of all, so that no way of writing a path leads past it.
func (g *gate) require(role signin.Role, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, err := g.identify(r)
		throttled, isThrottled := errors.AsType[*auth.ThrottledError](err)
		switch {
		case isThrottled:
			w.Header().Set("Retry-After", retryAfter(throttled.Wait))
			server.Refuse(w, r, http.StatusTooManyRequests, "Too many wrong tokens were sent from this address.")
		case err != nil:
			g.log.Error("the tokens of the API cannot be told", zap.Error(err))
			server.Refuse(w, r, http.StatusServiceUnavailable, "Tokens cannot be checked now; the log of the process says why.")
		case who == nil:
			g.turnAway(w, r)
		case !who.Role.May(role):
			server.Refuse(w, r, http.StatusForbidden, "The role "+string(who.Role)+" does not allow this; it takes the role "+string(role)+".")
		case changes(r) && !who.Confirms(csrfOf(r)):
			server.Refuse(w, r, http.StatusForbidden, "The request does not come from a page of this session: the header X-CSRF-Token or the field csrf is wrong or missing.")
		default:
			if changes(r) {
				g.log.Info("a request to the console", zap.String("who", who.Name), zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Stringer("from", server.Peer(r)))
			}
			next(w, r.WithContext(signin.NewContext(r.Context(), who)))
		}
	}
}

// identify returns who asks, by token or else by session; nil where that is
// nobody.
func (g *gate) identify(r *http.Request) (*signin.Identity, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return nil, nil
		}
		who, err := g.desk.Token(server.Peer(r), strings.TrimSpace(token))
		if errors.Is(err, auth.ErrWrong) {
			return nil, nil
		}
		return who, err
	}
	// Pages of others make browsers ask too, on this machine's other ports even
	// with the cookie. What they may do is lead here.
	if site := r.Header.Get("Sec-Fetch-Site"); (site == "cross-site" || site == "same-site") && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
		return nil, nil
	}
	for _, id := range sessionIDs(r) {
		if who := g.desk.Continue(id); who != nil {
			return who, nil
		}
	}
	return nil, nil
}

// turnAway asks whoever is not known to sign in.
func (g *gate) turnAway(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, server.APIPrefix) || changes(r) || r.URL.Path == "/metrics":
		w.Header().Set("WWW-Authenticate", `Bearer realm="Espalier"`)
		text := "Sign in, or send a token (`espalier token create`) as Authorization: Bearer."
		if !g.desk.HasUsers() {
			text += " The console has no users yet: `espalier setup` prints a link to make the first."
		}
		server.Refuse(w, r, http.StatusUnauthorized, text)
	case r.Header.Get("Sec-Fetch-Site") == "cross-site":
		// The cookie does not come along where a page of another site leads here. It
		// does once this page asks for the same again.
		comeAgain(w, r)
	default:
		http.Redirect(w, r, signInPath(r.URL.RequestURI()), http.StatusSeeOther)
	}
}

// metrics lets programs on this machine through without a token.
func (g *gate) metrics(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if fromHere(r) {
			next(w, r)
			return
		}
		g.require(signin.Viewer, next)(w, r)
	}
}

// changes reports whether a request may change something.
func changes(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead
}

func csrfOf(r *http.Request) string {
	if h := r.Header.Get("X-CSRF-Token"); h != "" {
		return h
	}
	return r.PostFormValue("csrf")
}
