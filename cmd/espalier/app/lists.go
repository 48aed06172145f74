package app

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
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
	return func(t policy.Target) http.RoundTripper {
		trusting := d.Trusting(t)
		return &http.Transport{
			Proxy: func(r *http.Request) (*url.URL, error) {
				if r.URL.Scheme == "https" { // DialContext goes through the parent
					return nil, nil
				}
				return trusting.Proxy(r)
			},
			DialContext:         trusting.DialContext,
			TLSClientConfig:     &tls.Config{RootCAs: roots},
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second,
			ForceAttemptHTTP2: true, DisableKeepAlives: true,
		}
	}
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

// listWarnings says what is wrong with the lists that are files, each text
// beginning with the key.
func listWarnings(cfg *configs.Config, all []lists.Status) []string {
	var warnings []string
	for _, s := range all {
		if cfg.Lists[s.Name].File == "" {
			continue
		}
		key := "lists." + s.Name + ".file: "
		if s.Error != "" {
			warnings = append(warnings, key+s.Error+": rules that name the list match nothing")
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
