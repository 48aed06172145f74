package proxy

import (
	"net/http"
	"sync"
)

// interim guards the writing of interim answers, which http.Transport reports
// from a goroutine of its own, perhaps after it has given the request up.
type interim struct {
	mu    sync.Mutex
	ended bool
}

// end waits until no interim answer is being written, and lets none follow.
func (i *interim) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ended = true
}

// passInterim passes an interim answer to r on. 100 is left to net/http, which
// says it where the client waits for it, and when the body is first asked for;
// until then nothing else may be written (net/http does not guard against that).
func (fx *forwarded) passInterim(r *http.Request, status int, h http.Header) {
	fx.interim.mu.Lock()
	defer fx.interim.mu.Unlock()
	expects := r.Header.Get("Expect") != "" && !fx.uploads()
	if fx.interim.ended || status == http.StatusContinue || expects || !r.ProtoAtLeast(1, 1) {
		return
	}
	cleanHopByHop(h, false)
	own := fx.w.ResponseWriter.Header()
	for name, values := range h {
		own[name] = values
	}
	fx.w.ResponseWriter.WriteHeader(status) // without Content-Length
	clear(own)
}

// uploads reports whether something of the request's body has come.
func (fx *forwarded) uploads() bool {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	return fx.sent > 0
}
