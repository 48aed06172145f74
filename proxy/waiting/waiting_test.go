package waiting

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// limit bounds every wait; none takes that long unless something hangs.
const limit = 10 * time.Second

func dial(t *testing.T, s *httptest.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(limit))
	return c
}

func ask(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func expectEnd(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v, want the end", n, err)
	}
}

// Those that have waited longest go first.
func TestRoom(t *testing.T) {
	turned := 0
	room := NewRoom(2, func() { turned++ })
	var ours [4]*Place
	var theirs [4]net.Conn
	for i := range ours {
		ours[i] = &Place{}
		ours[i].Conn, theirs[i] = net.Pipe()
		_ = theirs[i].SetDeadline(time.Now().Add(limit))
	}
	room.Enter(ours[0])
	room.Enter(ours[1])
	room.Enter(ours[1]) // as a connection that net/http has begun to read
	room.Leave(ours[0])
	room.Enter(ours[0])
	room.Enter(ours[2])
	expectEnd(t, theirs[1])
	room.Leave(ours[1])
	room.Shed(1)
	expectEnd(t, theirs[0])
	room.Shed(5)
	expectEnd(t, theirs[2])
	if n := room.Len(); n != 0 || turned != 3 {
		t.Errorf("%d wait and %d were turned away, want 0 and 3", n, turned)
	}
	room.Enter(ours[3])
	room.Leave(ours[3])
	room.Shed(1)
	if turned != 3 {
		t.Error("a connection that has left was closed")
	}
}

// A server's connections wait before their first request and between requests,
// and not while one is answered.
func TestConnState(t *testing.T) {
	room := NewRoom(2, nil)
	entered, answer := make(chan struct{}), make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-answer
		}
	}))
	s.Config.ConnState = room.ConnState
	s.Start()
	defer s.Close()
	waiting := func(n int) {
		t.Helper()
		await(t, "the room to hold those that wait", func() bool { return room.Len() == n })
	}
	slow := dial(t, s)
	_, _ = io.WriteString(slow, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	silent := dial(t, s)
	waiting(1)
	kept := dial(t, s)
	ask(t, kept)
	waiting(2)
	third := dial(t, s)
	expectEnd(t, silent)
	room.Shed(2)
	expectEnd(t, kept)
	expectEnd(t, third)
	close(answer)
	resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("the request under way: %v, %v", resp, err)
	}
	waiting(1)
	slow.Close()
	waiting(0)
}
