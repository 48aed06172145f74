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
	var out []io.Closer
	if r.n > r.max {
		out = r.take(1)
	}
	r.mu.Unlock()
	r.close(out)
}

// Leave notes that p waits no longer: a request has come, or it is closed.
func (r *Room) Leave(p *Place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(p)
}

// remove removes p, if it waits. mu is held.
func (r *Room) remove(p *Place) {
	if p.behind == nil {
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
	r.mu.Lock()
	out := r.take(n)
	r.mu.Unlock()
	r.close(out)
}

// take removes the n that have waited longest. mu is held.
func (r *Room) take(n int) (out []io.Closer) {
	for ; r.n > 0 && len(out) < n; r.remove(r.ring.behind) {
		out = append(out, r.ring.behind.Conn)
	}
	return out
}

func (r *Room) close(out []io.Closer) {
	for _, c := range out {
		c.Close()
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
	case http.StateActive:
		r.Leave(place.(*Place))
	default:
		r.Leave(place.(*Place))
		r.places.Delete(c)
	}
}
