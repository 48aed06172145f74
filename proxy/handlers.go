package proxy

import (
	"context"
	"net"
	"sync"
)

// handlers knows the handlers that run and the connections that they have taken
// over from net/http, which waits for neither when it is cut.
type handlers struct {
	mu      sync.Mutex
	running int
	taken   map[net.Conn]struct{}
	idle    chan struct{} // closed when the last handler ends, while shutdown waits
}

func (h *handlers) enter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running++
}

func (h *handlers) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running--
	if h.running == 0 && h.idle != nil {
		close(h.idle)
		h.idle = nil
	}
}

// take notes a connection that a handler relays by itself; release forgets it.
func (h *handlers) take(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taken == nil {
		h.taken = map[net.Conn]struct{}{}
	}
	h.taken[c] = struct{}{}
}

func (h *handlers) release(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.taken, c)
}

// shutdown waits until no handler runs. When ctx ends it closes what they have
// taken over; that and a closed http.Server make them end.
func (h *handlers) shutdown(ctx context.Context) {
	h.mu.Lock()
	if h.running == 0 {
		h.mu.Unlock()
		return
	}
	idle := make(chan struct{})
	h.idle = idle
	h.mu.Unlock()
	select {
	case <-idle:
		return
	case <-ctx.Done():
	}
	h.mu.Lock()
	for c := range h.taken {
		c.Close()
	}
	h.mu.Unlock()
	<-idle
}
