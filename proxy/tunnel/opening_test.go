package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"espalier/proxy/traffic"
)

// judge is an Owner that decides by what its client says first: it holds "hold…" until a full
// stop, and does what the first word names.
type judge struct {
	owner
	taken    chan net.Conn
	counters *traffic.Counters
}

var errRefused = errors.New("refused")

func (j *judge) TunnelOpening(b []byte, down int64) Verdict {
	switch {
	case bytes.HasPrefix(b, []byte("refuse")):
		return Verdict{Step: Refuse, Say: []byte("no"), Err: errRefused}
	case bytes.HasPrefix(b, []byte("take")):
		return Verdict{Step: Take}
	case bytes.HasPrefix(b, []byte("count")):
		return Verdict{Service: j.counters.Service("siri")}
	case bytes.HasPrefix(b, []byte("panic")):
		panic("on purpose")
	case bytes.HasPrefix([]byte("hold"), b), bytes.HasPrefix(b, []byte("hold")) && b[len(b)-1] != '.':
		return Verdict{Step: Hold}
	}
	return Verdict{}
}

func (j *judge) TunnelTaken(c net.Conn) { j.taken <- c }

// openings runs test with a tunnel of each engine whose client has sent head behind its
// request.
func openings(t *testing.T, head string, test func(t *testing.T, s *stage, client, upstream *net.TCPConn, j *judge)) {
	t.Helper()
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		client, nearClient := s.pair()
		nearUpstream, upstream := s.pair()
		j := &judge{make(owner, 1), make(chan net.Conn, 1), traffic.New()}
		s.engine.Start(Tunnel{Client: nearClient, Upstream: nearUpstream, Head: []byte(head), Service: s.service, Owner: j})
		test(t, s, client, upstream, j)
	})
}

// What the client says first passes as it is, once it is judged, however it is cut; the
// upstream's bytes pass meanwhile.
func TestOpeningIsHeld(t *testing.T) {
	for _, head := range []string{"", "h", "hold on"} {
		t.Run(head, func(t *testing.T) {
			openings(t, head, func(t *testing.T, s *stage, client, upstream *net.TCPConn, j *judge) {
				say(t, upstream, "greeting")
				expect(t, client, "greeting")
				rest := "hold on a while."[len(head):]
				for i := range rest[:len(rest)-1] {
					say(t, client, rest[i:i+1])
				}
				say(t, upstream, "more")
				expect(t, client, "more")
				_ = upstream.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				if n, err := upstream.Read(make([]byte, 1)); n > 0 || err == nil {
					t.Error("a byte passed before the opening was judged")
				}
				_ = upstream.SetReadDeadline(time.Now().Add(limit))
				say(t, client, ".")
				expect(t, upstream, "hold on a while.")
				say(t, client, "refuse") // too late
				expect(t, upstream, "refuse")
				client.CloseWrite()
				upstream.CloseWrite()
				if st := j.wait(t); st.Err != nil || st.Up != 22 || st.Down != 12 {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

func TestOpeningIsRefused(t *testing.T) {
	for _, head := range []string{"", "refuse it"} {
		t.Run(head, func(t *testing.T) {
			openings(t, head, func(t *testing.T, s *stage, client, upstream *net.TCPConn, j *judge) {
				if head == "" {
					say(t, client, "refuse it")
				}
				expect(t, client, "no")
				expectEOF(t, upstream)
				if st := j.wait(t); st.Err != errRefused || st.Up != 0 {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

// A client that is taken keeps its connection, and what it has sent; the upstream is closed.
func TestOpeningIsTaken(t *testing.T) {
	for _, head := range []string{"", "ta", "take it"} {
		t.Run(head, func(t *testing.T) {
			openings(t, head, func(t *testing.T, s *stage, client, upstream *net.TCPConn, j *judge) {
				if head == "ta" {
					say(t, client, "ke it") // which is not held before: "ta" passes
					expect(t, upstream, "take it")
					client.CloseWrite()
					upstream.CloseWrite()
					j.wait(t)
					return
				}
				if head == "" {
					say(t, client, "take it")
				}
				expectEOF(t, upstream)
				c := <-j.taken
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(limit))
				b := make([]byte, 11)
				say(t, client, ", do")
				if _, err := io.ReadFull(c, b); err != nil || string(b) != "take it, do" {
					t.Errorf("%q, %v", b, err)
				}
				if _, err := io.WriteString(c, "thanks"); err != nil {
					t.Error(err)
				}
				expect(t, client, "thanks")
				for end := time.Now().Add(limit); s.engine.Len() > 0; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatal("the tunnel is still open")
					}
				}
			})
		})
	}
}

// Bytes count for the service that the Owner names.
func TestOpeningCounts(t *testing.T) {
	openings(t, "", func(t *testing.T, s *stage, client, upstream *net.TCPConn, j *judge) {
		say(t, client, "count")
		expect(t, upstream, "count")
		say(t, upstream, "yes")
		expect(t, client, "yes")
		client.CloseWrite()
		upstream.CloseWrite()
		j.wait(t)
		waitFor(t, "close the tunnel", func() bool { return s.engine.Len() == 0 })
		for _, c := range j.counters.Snapshot() {
			if c.Service == "siri" && (c.Up != 5 || c.Down != 3 || c.Tunnels != 0) {
				t.Errorf("%+v", c)
			}
		}
	})
}

// A client that ends in its opening, and one that says nothing, end as they should.
func TestOpeningEnds(t *testing.T) {
	for _, x := range []struct {
		name, says string
		err        error
	}{
		{"in its opening", "hold", ErrOpening},
		{"without a byte", "", nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			openings(t, "", func(t *testing.T, s *stage, client, upstream *net.TCPConn, j *judge) {
				if x.says != "" {
					say(t, client, x.says)
				}
				client.CloseWrite()
				expectEOF(t, upstream)
				upstream.CloseWrite()
				if st := j.wait(t); !errors.Is(st.Err, x.err) || st.Up != 0 {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
	t.Run("longer than what is held", func(t *testing.T) {
		openings(t, "", func(t *testing.T, s *stage, client, upstream *net.TCPConn, j *judge) {
			_, _ = io.WriteString(client, "hold"+strings.Repeat("x", 2*maxHeld))
			if st := j.wait(t); !errors.Is(st.Err, ErrOpening) || st.Up != 0 {
				t.Errorf("stats %+v", st)
			}
		})
	})
	t.Run("a panic", func(t *testing.T) {
		openings(t, "", func(t *testing.T, s *stage, client, upstream *net.TCPConn, j *judge) {
			say(t, client, "panic")
			if st := j.wait(t); st.Err == nil || st.Up != 0 {
				t.Errorf("stats %+v", st)
			}
			expectEOF(t, upstream)
		})
	})
}

// learning is an Owner that changes as its tunnel goes on.
type learning struct {
	owner
	heard, ended bool
}

func (l *learning) TunnelOpening([]byte, int64) Verdict { l.heard = true; return Verdict{} }
func (l *learning) TunnelDone(s Stats)                  { l.ended = true; l.owner <- s }

// Cut sees an Owner between the calls of its methods, and not after its end.
func TestCutSeesTheOwnerAlone(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		for range 20 {
			client, nearClient := s.pair()
			nearUpstream, upstream := s.pair()
			l := &learning{owner: make(owner, 1)}
			s.engine.Start(Tunnel{Client: nearClient, Upstream: nearUpstream, Service: s.service, Owner: l})
			cut := func() {
				s.engine.Cut(func(_ *traffic.Service, o Owner) error {
					if l := o.(*learning); l.ended {
						t.Errorf("asked after the end, heard %t", l.heard)
					}
					return nil
				})
			}
			cut()
			say(t, client, "x")
			cut()
			expect(t, upstream, "x")
			client.Close()
			upstream.Close()
			cut()
			l.wait(t)
			cut()
		}
	})
}
