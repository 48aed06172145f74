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

// secured sets the headers that every admin answer carries.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
			"connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// ownHost refuses requests for a host that is not this machine: a page whose
// name was pointed here (DNS rebinding) shall not read the console. names are
// further ones that it is reached by.
func ownHost(names func() []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if host := hostOf(r); !isLoopbackHost(host) && !isAddress(host, local) && !slices.Contains(names(), host) {
			server.Refuse(w, r, http.StatusMisdirectedRequest, fmt.Sprintf(
				"The console does not answer to the host %q, only to localhost, to the address that it listens on, and to the names in web.hosts. "+
					"Open it by one of these, for example through an SSH tunnel to localhost.", r.Host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// encrypted leads what comes in plain from other machines to https, on a listener
// that takes both: passwords and tokens are not to be read on the way. It must
// stand behind ownHost.
func encrypted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		switch {
		case r.TLS != nil || !ok || local.IP.IsLoopback():
			next.ServeHTTP(w, r)
		case changes(r) || r.Header.Get("Authorization") != "":
			server.Refuse(w, r, http.StatusForbidden, "The console is for https only from other machines. What this request has sent could be read on the way: change the password or revoke the token.")
		default:
			http.Redirect(w, r, "https://"+r.Host+r.URL.RequestURI(), http.StatusPermanentRedirect)
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
	if hostclass.IsLocalhost(host) {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// isAddress reports whether a host is the address of a socket.
func isAddress(host string, local net.Addr) bool {
	addr, err := netip.ParseAddr(host)
	tcp, ok := local.(*net.TCPAddr)
	return err == nil && ok && tcp.AddrPort().Addr().Unmap().WithZone("") == addr.Unmap().WithZone("")
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
