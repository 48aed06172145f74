// Package public serves what devices fetch: the PAC script, the certificate that they
// must trust, and a page for people.
package public

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"espalier/pac"
	"espalier/pac/health"
	"espalier/proxy/inspect"
	"espalier/proxy/page"
	"espalier/web/profile"
	"espalier/web/server"
)

// Handler is the handler of the public listeners: the PAC script where pac.PAC
// says, the root of the interception CA at /ca.crt and /ca.mobileconfig, lists for
// firewalls under /export/, a page for people at /, and /healthz and /readyz. It
// answers to GET and HEAD, under any Host, from memory, and never with a redirect.
type Handler struct {
	source   Source
	requests *prometheus.CounterVec
	fetches  fetchLog
}

// A Source is where a Handler learns what it serves. All fields must be set.
type Source struct {
	// PAC returns what scripts are made from now. It is called for each request
	// and never returns nil.
	PAC func() *pac.PAC
	// Proxy are the addresses of the plain proxy's listeners, with their actual
	// ports. Where pac.proxies is empty, scripts name the one that the client
	// can reach; see pac.Fetched.
	Proxy []netip.AddrPort
	// Health says which proxies are not well; scripts name them last.
	Health *health.Prober
	// Root returns the certificate that devices must trust, nil where there is no
	// interception CA.
	Root func() *x509.Certificate
	// RootProfile returns the profile that makes devices know it, nil where there is
	// none.
	RootProfile func() []byte
	// Export returns what firewalls must let devices reach, in a format of
	// catalog.Formats, nil where web.export is false.
	Export func(format string) []byte
	// URL is where devices reach these listeners, "http://HOST:PORT"; empty if that
	// is unknown, where the page at / names the address that the request arrived at.
	URL func() string
	// About returns whose proxy this is, and whom to ask for help; either may be
	// empty. The page at / shows both.
	About func() (organization, contact string)
	// Ready returns why no client should be sent here, nil where nothing speaks
	// against it. The reason is shown to whoever asks.
	Ready func() error
	Log   *zap.Logger
}

// New returns the handler.
func New(s Source) *Handler {
	p := &Handler{source: s, fetches: fetchLog{counts: map[fetchKey]*Fetches{}}, requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "espalier_pac_requests_total",
		Help: "Requests for the PAC script, by site; default is outside sites.",
	}, []string{"site"})}
	p.requests.WithLabelValues(pac.General)
	return p
}

// Server returns a server of the public listeners, within limits that suit small
// answers to many strangers. Its listeners should be wrapped by hello.NewListener,
// or hello.NewMux where there is a certificate.
func (p *Handler) Server() *http.Server {
	s := server.New(p, p.source.Log)
	s.DisableGeneralOptionsHandler = true // "OPTIONS *" is for the handler too
	s.WriteTimeout, s.IdleTimeout = 10*time.Second, 30*time.Second
	s.MaxHeaderBytes = 8 << 10
	return s
}

// Collector returns espalier_pac_requests_total. Its sites are configured ones.
func (p *Handler) Collector() prometheus.Collector { return p.requests }

// Fetches says who has fetched the script since the start.
func (p *Handler) Fetches() []Fetches { return p.fetches.list() }

// ServeHTTP implements http.Handler.
func (p *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		plain(w, http.StatusMethodNotAllowed, "only GET and HEAD are allowed")
		return
	}
	script := p.source.PAC()
	if site, ok := script.At(r.URL.Path, server.Peer(r)); ok {
		p.serveScript(w, r, script, site)
		return
	}
	switch r.URL.Path {
	case "/":
		if !r.URL.IsAbs() { // as clients ask that take this for a proxy
			p.serveWelcome(w, r)
			return
		}
	case "/ca.crt":
		if root := p.source.Root(); root != nil {
			ServeFile(w, r, "application/x-x509-ca-cert", root.Raw) // in DER, as devices install it
			return
		}
	case "/ca.mobileconfig":
		if data := p.source.RootProfile(); data != nil {
			ServeFile(w, r, profile.ContentType, data)
			return
		}
	case "/export/devices.txt", "/export/devices-networks.txt":
		if data := p.source.Export(exports[r.URL.Path]); data != nil {
			ServeFile(w, r, "text/plain; charset=utf-8", data)
			return
		}
	case "/healthz":
		plain(w, http.StatusOK, "ok")
		return
	case "/readyz":
		if err := p.source.Ready(); err != nil {
			plain(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		plain(w, http.StatusOK, "ok")
		return
	}
	plain(w, http.StatusNotFound, "there is nothing at this path")
}

// exports are the formats of the paths below /export/.
var exports = map[string]string{"/export/devices.txt": "list", "/export/devices-networks.txt": "networks"}

// plainPAC is the path of the script where it has no token.
const plainPAC = "/proxy.pac"

// serveWelcome answers with the page for people, in the language of the device.
func (p *Handler) serveWelcome(w http.ResponseWriter, r *http.Request) {
	welcome := page.Welcome{Language: page.Language(strings.Join(r.Header.Values("Accept-Language"), ","))}
	welcome.Organization, welcome.Contact = p.source.About()
	base := p.source.URL()
	if at := localAddr(r); base == "" && at.IsValid() {
		base = "http://" + at.String()
	}
	// A path with a token (pac.token) is a secret, which this page must not tell.
	if base != "" && p.source.PAC().Path("") == plainPAC {
		welcome.PACURL = base + plainPAC
	}
	if root := p.source.Root(); root != nil {
		welcome.CAName, welcome.Fingerprint = root.Subject.CommonName, inspect.Fingerprint(root)
	}
	body := welcome.HTML()
	h := w.Header()
	page.SetHeader(h)
	h.Set("Content-Language", welcome.Language)
	h.Set("Vary", "Accept-Language")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

// ServeFile answers with data, which is asked for again each time.
func ServeFile(w http.ResponseWriter, r *http.Request, contentType string, data []byte) {
	sum := sha256.Sum256(data)
	etag := `"` + hex.EncodeToString(sum[:8]) + `"`
	h := w.Header()
	h.Set("ETag", etag)
	h.Set("Cache-Control", "no-cache")
	if notModified(r.Header, etag, time.Time{}, false) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.Write(data)
}

// plain answers with a line of text.
func plain(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, text+"\n")
}

// scriptAge is how long a script may be used without asking again: short, since
// it is the way to lead devices away from a proxy, and long enough that a page
// with a hundred hosts asks once. Where there are several proxies to lead devices
// to, soonAge is.
const (
	scriptAge = 5 * time.Minute
	soonAge   = time.Minute
)

// serveScript answers with the script of site, which exists; "" is the general
// one.
func (p *Handler) serveScript(w http.ResponseWriter, r *http.Request, from *pac.PAC, site string) {
	label := site
	if site == "" {
		label = pac.General
	}
	p.requests.WithLabelValues(label).Inc()
	p.fetches.add(label, r.UserAgent(), time.Now())
	proxies := from.Proxies(site, "")
	if proxies == nil {
		fetched, err := pac.Fetched(localAddr(r).Addr(), p.source.Proxy)
		if err != nil {
			plain(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		proxies = from.Proxies(site, fetched)
	}
	age, modified := scriptAge, from.Modified()
	if len(proxies) > 1 {
		age = soonAge
		if changed := p.source.Health.Changed(); changed.After(modified) {
			modified = changed
		}
	}
	script, err := from.Script(site, from.Order(proxies, server.Peer(r), p.source.Health.Up))
	if err != nil {
		plain(w, http.StatusInternalServerError, err.Error())
		return
	}
	h := w.Header()
	h.Set("ETag", script.ETag)
	h.Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
	// Private, since the answer depends on who asks and by which address.
	h.Set("Cache-Control", "private, max-age="+strconv.Itoa(int(age/time.Second)))
	h.Set("Expires", time.Now().Add(age).UTC().Format(http.TimeFormat))
	h.Set("Vary", "Accept-Encoding")
	// The date says nothing to a device that moved from one site to another.
	byDate := !from.ByClient() || strings.HasPrefix(r.URL.Path, "/pac/")
	if notModified(r.Header, script.ETag, modified, byDate) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := script.Body
	if wantsGzip(r.Header.Values("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		body = script.Gzip
	}
	h.Set("Content-Type", "application/x-ns-proxy-autoconfig")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

// localAddr is the address that the request arrived at, the zero AddrPort where
// that is not known.
func localAddr(r *http.Request) netip.AddrPort {
	a, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if tcp, ok := a.(*net.TCPAddr); ok {
		at := tcp.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}

// notModified evaluates If-None-Match and, where that is missing and byDate is
// set, If-Modified-Since (RFC 9110, section 13.2.2).
func notModified(h http.Header, etag string, modified time.Time, byDate bool) bool {
	if tags := h.Values("If-None-Match"); len(tags) > 0 {
		for tag := range strings.SplitSeq(strings.Join(tags, ","), ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/") {
				return true
			}
		}
		return false
	}
	since, err := http.ParseTime(h.Get("If-Modified-Since"))
	return err == nil && byDate && !modified.Truncate(time.Second).After(since)
}

// wantsGzip reports whether Accept-Encoding asks for gzip, at least as much as
// for no encoding (RFC 9110, section 12.5.3).
func wantsGzip(accept []string) bool {
	weights := map[string]float64{}
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		coding, params, _ := strings.Cut(strings.ToLower(part), ";")
		weight := 1.0
		if v, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
			if weight, _ = strconv.ParseFloat(v, 64); !(weight >= 0 && weight <= 1) { // an error is 0 or infinite
				weight = 0
			}
		}
		weights[strings.TrimSpace(coding)] = weight
	}
	for _, coding := range []string{"gzip", "x-gzip", "*"} {
		if weight, ok := weights[coding]; ok {
			return weight > 0 && weight >= weights["identity"]
		}
	}
	return false
}
