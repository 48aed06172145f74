package web

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"go.uber.org/zap"
)

// secured sets the headers that every admin answer carries.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
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
// name was pointed here (DNS rebinding) shall not read the console.
func ownHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if !isOwnHost(r.Host, local) {
			refuse(w, r, http.StatusMisdirectedRequest, fmt.Sprintf(
				"The console does not answer to the host %q, only to localhost and to the address that it listens on. "+
					"Open it by that address, for example through an SSH tunnel to localhost.", r.Host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isOwnHost reports whether the Host header names the loopback, or the address
// at which the connection arrived.
func isOwnHost(host string, local net.Addr) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() {
		return true
	}
	tcp, ok := local.(*net.TCPAddr)
	return ok && tcp.AddrPort().Addr().Unmap().WithZone("") == addr
}

// readOnly refuses every method that could change something.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, r, http.StatusMethodNotAllowed, "Only GET and HEAD are allowed.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refuse answers with text, the API with a Problem.
func refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		writeProblem(w, status, text)
		return
	}
	http.Error(w, text, status)
}

// recovered answers 500 where a handler panics, and logs why.
func recovered(log *zap.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				log.Error("a request to the console failed", zap.String("path", r.URL.Path), zap.Any("panic", v), zap.Stack("stack"))
				refuse(w, r, http.StatusInternalServerError, "The console failed; the log of the process says why.")
			}
		}()
		next.ServeHTTP(w, r)
	})
}
