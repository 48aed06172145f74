// Package waiting bounds the connections on which nothing is asked: those whose
// first request has not come yet, and those kept for the next one. Whoever opens
// many of them and says nothing pushes out its own.
package waiting

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// A Room holds connections that wait for a request. When there are too many the
// one that has waited longest is closed. It is safe for concurrent use.
type Room struct {
	max    int
	turned func() // called for each connection that had to go; may be nil

	mu     sync.Mutex
	guests list.List // of net.Conn, the one that has waited longest first
	places map[net.Conn]*list.Element
}

// NewRoom returns a Room for max connections, which must be positive.
func NewRoom(max int, turned func()) *Room {
	return &Room{max: max, turned: turned, places: map[net.Conn]*list.Element{}}
}

// Enter notes that c waits from now on. It may be closed at any time until Leave.
func (r *Room) Enter(c net.Conn) {
	r.mu.Lock()
	if r.places[c] == nil {
		r.places[c] = r.guests.PushBack(c)
	}
	var out []net.Conn
	if len(r.places) > r.max {
		out = r.take(1)
	}
	r.mu.Unlock()
	r.close(out)
}

// Leave notes that c waits no longer: a request has come, or it is closed.
func (r *Room) Leave(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.places[c]; e != nil {
		r.guests.Remove(e)
		delete(r.places, c)
	}
}

// Len is the number of connections that wait.
func (r *Room) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.places)
}

// Shed closes the n connections that have waited longest, or all.
func (r *Room) Shed(n int) {
	r.mu.Lock()
	out := r.take(n)
	r.mu.Unlock()
	r.close(out)
}

// take removes the n that have waited longest. mu is held.
func (r *Room) take(n int) (out []net.Conn) {
	for e := r.guests.Front(); e != nil && len(out) < n; e = r.guests.Front() {
		c := r.guests.Remove(e).(net.Conn)
		delete(r.places, c)
		out = append(out, c)
	}
	return out
}

func (r *Room) close(out []net.Conn) {
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
	switch state {
	case http.StateNew, http.StateIdle:
		r.Enter(c)
	default:
		r.Leave(c)
	}
}
