package web

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"espalier/policy/hostclass"
	"espalier/web/server"
)

// maxBody bounds what an admin request may carry.
const maxBody = 64 << 10

// adminHeaders are those of every admin answer.
var adminHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
		"connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
	"X-Frame-Options":              "DENY",
	"X-Content-Type-Options":       "nosniff",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cache-Control":                "no-store",
}

// guarded refuses requests, before it is known who asks:
//   - for a host that is not this machine, nor one of names: a page whose name was
//     pointed here (DNS rebinding) shall not read the console;
//   - in plain from other machines, which it leads to https, on a listener that takes
//     both: passwords and tokens are not to be read on the way;
//   - that pages of others make to change something, as browsers tell by
//     Sec-Fetch-Site and Origin.
func guarded(names func() []string, next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range adminHeaders {
			w.Header().Set(name, value)
		}
		local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		host := hostOf(r)
		switch {
		case !isLoopbackHost(host) && !isAddress(host, local) && !slices.Contains(names(), host):
			server.Refuse(w, r, http.StatusMisdirectedRequest, fmt.Sprintf(
				"The console does not answer to the host %q, only to localhost, to the address that it listens on, and to the names in web.hosts. "+
					"Open it by one of these, for example through an SSH tunnel to localhost.", r.Host))
		case r.TLS == nil && local != nil && !local.IP.IsLoopback():
			if changes(r) || r.Header.Get("Authorization") != "" {
				server.Refuse(w, r, http.StatusForbidden, "The console is for https only from other machines. What this request has sent could be read on the way: change the password or revoke the token.")
				return
			}
			http.Redirect(w, r, "https://"+r.Host+r.URL.RequestURI(), http.StatusPermanentRedirect)
		case protection.Check(r) != nil:
			server.Refuse(w, r, http.StatusForbidden, "The request comes from a page that is not the console's own.")
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			next.ServeHTTP(w, r)
		}
	})
}

// hostOf is the host that a request is for, without port, brackets and a dot at
// the end, in lower case.
func hostOf(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// isLoopbackHost reports whether a host is the loopback by name or address.
func isLoopbackHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return hostclass.IsLocalhost(host) || err == nil && addr.Unmap().IsLoopback()
}

// isAddress reports whether a host is the address of a socket.
func isAddress(host string, local *net.TCPAddr) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && local != nil && local.AddrPort().Addr().Unmap().WithZone("") == addr.Unmap().WithZone("")
}

// fromHere reports whether a program on this machine asks by a name of the
// loopback, and not a reverse proxy for somebody elsewhere.
func fromHere(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	return server.Peer(r).Unmap().IsLoopback() && isLoopbackHost(hostOf(r))
}
