package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"espalier/configs"
	"espalier/policy"
	"espalier/policy/lists"
	"espalier/proxy/egress"
)

// newLists returns Lists that keep their copies in the data directory.
func newLists(cfg *configs.Config, log *zap.Logger) *lists.Lists {
	return lists.New(filepath.Join(cfg.Data, "lists"), log)
}

// listTransport fetches lists the way that clients' requests go, but for the
// address guard: the administrator chose the URL. Where its server redirects
// elsewhere, that is the server's choice, and the guard is asked. roots are as in
// proxy.State.
func listTransport(d *egress.Dialer, roots *x509.CertPool) lists.Transport {
	return func(t policy.Target) http.RoundTripper { return fetcher{d.Trusting(t), roots} }
}

// A fetcher sends each request on a connection of its own.
type fetcher struct {
	dialer *egress.Dialer
	roots  *x509.CertPool
}

// RoundTrip implements http.RoundTripper.
func (f fetcher) RoundTrip(r *http.Request) (*http.Response, error) {
	conn, parent, err := f.dial(r)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext:         func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		TLSClientConfig:     &tls.Config{RootCAs: f.roots},
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second,
		ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}
	if parent != nil {
		transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: parent.String()})
		r = r.Clone(r.Context())
		if auth := parent.ProxyAuthorization(); auth != "" {
			r.Header.Set("Proxy-Authorization", auth)
		}
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		conn.Close() // the transport may not have come to it
	}
	return resp, err
}

// dial connects for r. parent is set if the request is for a parent proxy, in absolute
// form.
func (f fetcher) dial(r *http.Request) (conn net.Conn, parent *egress.Parent, err error) {
	port := uint16(80)
	if r.URL.Scheme == "https" {
		port = 443
	}
	t, err := policy.ParseTarget(r.URL.Host, port)
	if err != nil {
		return nil, nil, err
	}
	if r.URL.Scheme == "https" {
		conn, err = f.dialer.Dial(r.Context(), t)
		return conn, nil, err
	}
	return f.dialer.DialPlain(r.Context(), t)
}

// listFiles are the files that lists are read from.
func listFiles(cfg *configs.Config) []string {
	var files []string
	for _, l := range cfg.Lists {
		if l.File != "" {
			files = append(files, l.File)
		}
	}
	return files
}

// listWarnings says what is wrong with lists, each text beginning with the key. Of lists from
// URLs it is about the last copy.
func listWarnings(cfg *configs.Config, all []lists.Status) []string {
	var warnings []string
	for _, s := range all {
		key := "lists." + s.Name + ".url: "
		switch l := cfg.Lists[s.Name]; {
		case l.File != "":
			key = "lists." + s.Name + ".file: "
		case l.UT1 != "":
			key = "lists." + s.Name + ".ut1: "
		}
		if s.Error != "" {
			warnings = append(warnings, key+s.Error+": rules that name the list "+s.Unloaded())
		}
		for _, bad := range s.Bad {
			warnings = append(warnings, fmt.Sprintf("%s%s:%s", key, s.Source, bad))
		}
		if more := s.BadLines - len(s.Bad); more > 0 {
			warnings = append(warnings, fmt.Sprintf("%s%s: %d more bad lines", key, s.Source, more))
		}
	}
	return warnings
}

// listNotes says what lists hold; of those from URLs, what the last copy holds.
func listNotes(cfg *configs.Config, all []lists.Status) []string {
	var notes []string
	for _, s := range all {
		isFile := cfg.Lists[s.Name].File != ""
		if s.Loaded.IsZero() {
			if !isFile {
				notes = append(notes, "list "+s.Name+": not fetched yet; `espalier run` fetches it")
			}
			continue
		}
		note := fmt.Sprintf("list %s: entries %d, skipped lines %d, bad lines %d", s.Name, s.Entries, s.SkippedLines, s.BadLines)
		if !isFile {
			note += ", as last fetched"
		}
		notes = append(notes, note)
		for _, line := range s.Remarks() {
			notes = append(notes, "list "+s.Name+": "+line)
		}
	}
	return notes
}
