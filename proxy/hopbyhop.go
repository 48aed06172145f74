package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// hopByHop are the headers that concern one connection only (RFC 9110, 7.6.1,
// and those that older proxies made up).
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Transfer-Encoding", "Upgrade",
	"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info",
}

// cleanHopByHop removes hop-by-hop headers and those that Connection nominates,
// but for what the message is framed and routed by: nobody may have that taken
// out. The upgrade to a WebSocket is left standing where there is one.
func cleanHopByHop(h http.Header, websocket bool) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			switch name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name {
			case "Content-Length", "Host":
			default:
				delete(h, name)
			}
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
	if websocket {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
	}
}

// isWebSocket reports whether a message's headers ask for a WebSocket, or grant
// it.
func isWebSocket(h http.Header) bool {
	return httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade") && len(h["Upgrade"]) == 1 &&
		strings.EqualFold(h["Upgrade"][0], "websocket")
}

// wantsWebSocket reports whether r asks for a WebSocket (RFC 6455, 4.1).
func wantsWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoAtLeast(1, 1) && r.ContentLength == 0 && isWebSocket(r.Header)
}

// cleanTrailer removes from a trailer what may not stand in one, since a
// recipient might take it for a header (RFC 9110, 6.5.1).
func cleanTrailer(t http.Header) {
	for name := range t {
		if !httpguts.ValidTrailerHeader(name) || slices.Contains(hopByHop, name) {
			delete(t, name)
		}
	}
}

// lastHop heeds Max-Forwards (RFC 9110, 7.6.2): it counts it down, or reports that
// the request is to be answered here.
func lastHop(h http.Header) bool {
	n, err := strconv.ParseUint(h.Get("Max-Forwards"), 10, 31)
	switch {
	case err != nil:
		return false
	case n == 0:
		return true
	}
	h.Set("Max-Forwards", strconv.FormatUint(n-1, 10))
	return false
}
