// Package waiting bounds the connections on which nothing is asked: those whose
// first request has not come yet, and those kept for the next one. A client that opens
// many of them and says nothing pushes out its own.
package waiting

import (
	"io"
	"net"
	"net/http"
	"sync"
)

// A Place is where a connection waits in a Room. Conn must be set, and stay, before it
// enters for the first time.
type Place struct {
	Conn io.Closer

	before, behind *Place // in the ring of the Room; nil: it does not wait
}

// A Room holds connections that wait for a request. When there are too many the
// one that has waited longest is closed. It is safe for concurrent use.
type Room struct {
	max    int
	turned func() // called for each connection that had to go; may be nil

	mu   sync.Mutex
	ring Place // behind it is the one that has waited longest
	n    int

	places sync.Map // of ConnState: *Place by net.Conn
}

// NewRoom returns a Room for max connections, which must be positive.
func NewRoom(max int, turned func()) *Room {
	r := &Room{max: max, turned: turned}
	r.ring.before, r.ring.behind = &r.ring, &r.ring
	return r
}

// Enter notes that p waits from now on. Its connection may be closed at any time until
// Leave.
func (r *Room) Enter(p *Place) {
	r.mu.Lock()
	if p.behind == nil {
		p.before, p.behind = r.ring.before, &r.ring
		p.before.behind, p.behind.before = p, p
		r.n++
	}
	full := r.n > r.max
	r.mu.Unlock()
	if full {
		r.Shed(1)
	}
}

// Leave notes that p waits no longer: a request has come, or it is closed.
func (r *Room) Leave(p *Place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(p)
}

// remove removes p, if it waits. mu is held.
func (r *Room) remove(p *Place) {
	if p.behind == nil || p == &r.ring {
		return
	}
	p.before.behind, p.behind.before = p.behind, p.before
	p.before, p.behind = nil, nil
	r.n--
}

// Len is the number of connections that wait.
func (r *Room) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// Shed closes the n connections that have waited longest, or all.
func (r *Room) Shed(n int) {
	for range n {
		r.mu.Lock()
		p := r.ring.behind
		r.remove(p)
		r.mu.Unlock()
		if p == &r.ring {
			return
		}
		p.Conn.Close()
		if r.turned != nil {
			r.turned()
		}
	}
}

// ConnState is for http.Server.ConnState: a new connection waits until a
// request's head has come, and an idle one for the next.
func (r *Room) ConnState(c net.Conn, state http.ConnState) {
	place, _ := r.places.LoadOrStore(c, &Place{Conn: c})
	switch state {
	case http.StateNew, http.StateIdle:
		r.Enter(place.(*Place))
		return
	case http.StateClosed, http.StateHijacked:
		r.places.Delete(c)
	}
	r.Leave(place.(*Place))
}
