package tunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"espalier/proxy/traffic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The same tests hold for every Engine.
func engines(t *testing.T, test func(t *testing.T, newEngine func(Config) Engine)) {
	for name, newEngine := range testEngines {
		t.Run(name, func(t *testing.T) { test(t, newEngine) })
	}
}

var testEngines = map[string]func(Config) Engine{
	"goroutines": func(c Config) Engine { return newRelay(c) },
	"platform":   New,
}

var patient = Config{Idle: time.Hour, HalfClosed: time.Hour}

// limit bounds every wait in these tests; none of them takes that long unless
// something hangs.
const limit = 30 * time.Second

// stage is an engine with the two far ends of its tunnels.
type stage struct {
	t       testing.TB
	engine  Engine
	service *traffic.Service
	traffic *traffic.Counters
	ln      *net.TCPListener
}

func newStage(t testing.TB, engine Engine) *stage {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, engine: engine, ln: ln.(*net.TCPListener), traffic: traffic.New()}
	s.service = s.traffic.Service("push")
	t.Cleanup(func() {
		ln.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		engine.Shutdown(ctx)
	})
	return s
}

// push returns the counts of the service that the tunnels count for.
func (s *stage) push() traffic.Snapshot {
	for _, c := range s.traffic.Snapshot() {
		if c.Service == s.service.ID {
			return c
		}
	}
	return traffic.Snapshot{}
}

// pair returns the two ends of a TCP connection.
func (s *stage) pair() (dialed, accepted *net.TCPConn) {
	s.t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	ch := make(chan result, 1)
	go func() {
		c, err := s.ln.Accept()
		ch <- result{c, err}
	}()
	d, err := net.Dial("tcp", s.ln.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	a := <-ch
	if a.err != nil {
		s.t.Fatal(a.err)
	}
	for _, c := range []net.Conn{d, a.c} {
		_ = c.SetDeadline(time.Now().Add(limit))
	}
	return d.(*net.TCPConn), a.c.(*net.TCPConn)
}

type owner chan Stats

func (o owner) TunnelDone(s Stats)                       { o <- s }
func (owner) TunnelOpened(time.Duration, netip.AddrPort) {}
func (owner) TunnelMoved(int64, int64)                   {}
func (owner) TunnelOpening([]byte, int64) Verdict        { return Verdict{} }
func (owner) TunnelTaken(net.Conn)                       {}

func (o owner) wait(t *testing.T) Stats {
	t.Helper()
	select {
	case s := <-o:
		return s
	case <-time.After(limit):
		t.Fatal("the tunnel did not end")
		return Stats{}
	}
}

// open starts a tunnel and returns its far ends.
func (s *stage) open(head string) (client, upstream *net.TCPConn, end owner) {
	s.t.Helper()
	client, nearClient := s.pair()
	nearUpstream, upstream := s.pair()
	_ = nearClient.SetDeadline(time.Time{})
	_ = nearUpstream.SetDeadline(time.Time{})
	end = make(owner, 1)
	var h []byte
	if head != "" {
		h = []byte(head)
	}
	s.engine.Start(Tunnel{Client: nearClient, Upstream: nearUpstream, Head: h, Service: s.service, Owner: end})
	s.t.Cleanup(func() { client.Close(); upstream.Close() })
	return client, upstream, end
}

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func expectEOF(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}

func TestBytesFlowBothWaysAndAreCountedBeforeTheEnd(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		client, upstream, end := s.open("")
		say(t, client, "hello")
		expect(t, upstream, "hello")
		say(t, upstream, "good morning")
		expect(t, client, "good morning")
		waitFor(t, "live counts", func() bool {
			count := s.push()
			return count.Up == 5 && count.Down == 12 && count.Tunnels == 1
		})
		if n := s.engine.Len(); n != 1 {
			t.Errorf("Len is %d with one tunnel open", n)
		}
		client.Close()
		expectEOF(t, upstream)
		upstream.Close()
		if got := end.wait(t); got.Up != 5 || got.Down != 12 || got.Err != nil {
			t.Errorf("stats %+v", got)
		}
		waitFor(t, "no tunnel", func() bool { return s.engine.Len() == 0 && s.push().Tunnels == 0 })
	})
}

func TestHeadIsRelayedFirst(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		client, upstream, _ := s.open("client hello, ")
		say(t, client, "and more")
		expect(t, upstream, "client hello, and more")
	})
}

func TestHalfClose(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		for _, first := range []string{"client", "upstream"} {
			t.Run(first+" first", func(t *testing.T) {
				a, b, end := s.open("")
				if first == "upstream" {
					a, b = b, a
				}
				say(t, a, "question")
				if err := a.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				expect(t, b, "question")
				expectEOF(t, b)
				say(t, b, "a long answer")
				expect(t, a, "a long answer")
				b.Close()
				expectEOF(t, a)
				if st := end.wait(t); st.Err != nil || st.Up+st.Down != 21 {
					t.Errorf("stats %+v", st)
				}
			})
		}
	})
}

func TestBulkBothWays(t *testing.T) {
	const size = 24 << 20
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		client, upstream, end := s.open("")
		var wg sync.WaitGroup
		for i, ends := range [][2]*net.TCPConn{{client, upstream}, {upstream, client}} {
			wg.Go(func() { send(t, ends[0], uint64(i), size) })
			wg.Go(func() { receive(t, ends[1], uint64(i), size) })
		}
		wg.Wait()
		if st := end.wait(t); st.Up != size || st.Down != size || st.Err != nil {
			t.Errorf("stats %+v", st)
		}
	})
}

// send writes size bytes that a seed determines, in chunks of uneven size, and
// closes the direction.
func send(t *testing.T, c *net.TCPConn, seed uint64, size int) {
	src := io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), int64(size))
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, src, make([]byte, 77_777)); err != nil {
		t.Errorf("send: %v", err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// receive checks that just what send has sent arrives.
func receive(t *testing.T, c *net.TCPConn, seed uint64, size int) {
	want, got := sha256.New(), sha256.New()
	_, _ = io.CopyN(want, rand.NewChaCha8([32]byte{byte(seed)}), int64(size))
	n, err := io.Copy(got, c)
	if err != nil || n != int64(size) || !bytes.Equal(want.Sum(nil), got.Sum(nil)) {
		t.Errorf("received %d of %d bytes, %v", n, size, err)
	}
}

func TestResetEndsTheTunnel(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		for _, who := range []string{"client", "upstream"} {
			t.Run(who, func(t *testing.T) {
				a, b, end := s.open("")
				if who == "upstream" {
					a, b = b, a
				}
				say(t, a, "last words")
				expect(t, b, "last words")
				_ = a.SetLinger(0)
				a.Close()
				if _, err := b.Read(make([]byte, 1)); err == nil {
					t.Error("the other side reads on after a reset")
				}
				st := end.wait(t)
				if !errors.Is(st.Err, syscall.ECONNRESET) || !strings.Contains(st.Err.Error(), who) {
					t.Errorf("the tunnel ended with %v, not with a reset by the %s", st.Err, who)
				}
			})
		}
	})
}

func TestStalledReceiverHoldsNobodyUp(t *testing.T) {
	const size = 12 << 20
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		client, upstream, end := s.open("")
		go send(t, upstream, 1, size) // the client does not read
		for range 20 {
			c, u, _ := s.open("")
			say(t, c, "ping")
			expect(t, u, "ping")
		}
		receive(t, client, 1, size)
		client.Close()
		if st := end.wait(t); st.Down != size {
			t.Errorf("stats %+v", st)
		}
	})
}

// More receivers stall than there are large pipes.
func TestManyStalledReceivers(t *testing.T) {
	const size, tunnels = 2 << 20, 50
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		var senders, receivers sync.WaitGroup
		var stalled []*net.TCPConn
		for i := range tunnels {
			client, upstream, _ := s.open("")
			_ = client.SetReadBuffer(64 << 10)
			senders.Go(func() { send(t, upstream, uint64(i), size) })
			stalled = append(stalled, client)
		}
		c, u, _ := s.open("")
		go send(t, u, 99, size)
		receive(t, c, 99, size) // bulk goes on beside them
		for i, client := range stalled {
			receivers.Go(func() { receive(t, client, uint64(i), size) })
		}
		receivers.Wait()
		senders.Wait()
	})
}

func TestTimeouts(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		half bool
		want error
	}{
		{"idle", Config{Idle: time.Millisecond, HalfClosed: time.Hour}, false, ErrIdle},
		{"half-closed", Config{Idle: time.Hour, HalfClosed: time.Millisecond}, true, ErrHalfOpen},
	} {
		tc.cfg.scan = 10 * time.Millisecond
		t.Run(tc.name, func(t *testing.T) {
			engines(t, func(t *testing.T, newEngine func(Config) Engine) {
				s := newStage(t, newEngine(tc.cfg))
				client, upstream, end := s.open("")
				if tc.half {
					_ = client.CloseWrite()
				}
				_ = upstream
				if st := end.wait(t); !errors.Is(st.Err, tc.want) {
					t.Errorf("the tunnel ended with %v, want %v", st.Err, tc.want)
				}
			})
		})
	}
}

func TestActiveTunnelOutlivesTheIdleTimeout(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		var clock, scans atomic.Int64
		s := newStage(t, newEngine(Config{
			Idle: time.Hour, HalfClosed: time.Hour, scan: time.Millisecond,
			now: func() int64 { scans.Add(1); return clock.Load() },
		}))
		client, upstream, end := s.open("")
		for range 5 {
			say(t, client, "x")
			expect(t, upstream, "x")
			clock.Add(int64(50 * time.Minute))
			seen := scans.Load()
			waitFor(t, "look for timeouts", func() bool { return scans.Load() > seen+3 })
		}
		select {
		case st := <-end:
			t.Errorf("the tunnel ended with %v", st.Err)
		default:
		}
	})
}

func TestShutdown(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		t.Run("waits for tunnels to end", func(t *testing.T) {
			s := newStage(t, newEngine(patient))
			client, upstream, end := s.open("")
			done := make(chan int)
			go func() { done <- s.engine.Shutdown(context.Background()) }()
			say(t, client, "still here")
			expect(t, upstream, "still here")
			client.Close()
			upstream.Close()
			if cut := <-done; cut != 0 {
				t.Errorf("%d tunnels cut", cut)
			}
			end.wait(t)
		})
		t.Run("leaves what Cut does not pick", func(t *testing.T) {
			s := newStage(t, newEngine(patient))
			client, upstream, end := s.open("")
			s.engine.Cut(func(service *traffic.Service, o Owner) error {
				if service == s.service && o == Owner(end) {
					return nil
				}
				return ErrShutdown
			})
			say(t, client, "still here")
			expect(t, upstream, "still here")
			s.engine.Cut(cutAll)
			if st := end.wait(t); !errors.Is(st.Err, ErrShutdown) || st.Up != 10 {
				t.Errorf("the tunnel ended with %+v", st)
			}
		})
		t.Run("ends with the error of Cut", func(t *testing.T) {
			s := newStage(t, newEngine(patient))
			_, _, end := s.open("")
			why := errors.New("lessons have begun")
			s.engine.Cut(func(*traffic.Service, Owner) error { return why })
			if st := end.wait(t); st.Err != why {
				t.Errorf("the tunnel ended with %+v", st)
			}
		})
		t.Run("cuts each tunnel once", func(t *testing.T) {
			s := newStage(t, newEngine(patient))
			const tunnels = 20
			var ends [tunnels]owner
			for i := range ends {
				_, _, ends[i] = s.open("")
			}
			var picked atomic.Int64
			s.engine.Cut(func(*traffic.Service, Owner) error { picked.Add(1); return ErrShutdown })
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			cut := s.engine.Shutdown(ctx)
			if n := int(picked.Load()); n+cut != tunnels {
				t.Errorf("%d tunnels cut by Cut and %d by Shutdown, want %d in all", n, cut, tunnels)
			}
			for _, end := range ends {
				end.wait(t)
			}
		})
		t.Run("cuts what is left", func(t *testing.T) {
			s := newStage(t, newEngine(patient))
			client, _, end := s.open("")
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if cut := s.engine.Shutdown(ctx); cut != 1 {
				t.Errorf("%d tunnels cut, want 1", cut)
			}
			if st := end.wait(t); !errors.Is(st.Err, ErrShutdown) {
				t.Errorf("the tunnel ended with %v", st.Err)
			}
			if _, err := client.Read(make([]byte, 1)); err == nil {
				t.Error("the client reads on")
			}
			_, _, late := s.open("")
			if st := late.wait(t); !errors.Is(st.Err, ErrShutdown) {
				t.Errorf("a tunnel started after the shutdown ended with %v", st.Err)
			}
		})
	})
}

// What is sent arrives, in order and whole, whatever the chunks, pauses and the
// order in which the directions close.
func TestRandomTraffic(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		for round := range 40 {
			r := rand.New(rand.NewPCG(uint64(round), 7))
			head := make([]byte, r.IntN(3)*r.IntN(5000))
			fill(head, r)
			client, upstream, end := s.open(string(head))
			upData, downData := random(r), random(r)
			var wg sync.WaitGroup
			wg.Go(func() { chop(t, client, upData, rand.New(rand.NewPCG(uint64(round), 8))) })
			wg.Go(func() { chop(t, upstream, downData, rand.New(rand.NewPCG(uint64(round), 9))) })
			wg.Go(func() {
				gulp(t, upstream, append(head, upData...), rand.New(rand.NewPCG(uint64(round), 10)))
			})
			wg.Go(func() { gulp(t, client, downData, rand.New(rand.NewPCG(uint64(round), 11))) })
			wg.Wait()
			if st := end.wait(t); st.Err != nil || st.Up != int64(len(head)+len(upData)) || st.Down != int64(len(downData)) {
				t.Fatalf("round %d: stats %+v", round, st)
			}
		}
	})
}

// What arrives before a reset is the beginning of what was sent, however the
// other side stalls, and the tunnel ends.
func TestRandomResets(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		for round := range 60 {
			r := rand.New(rand.NewPCG(uint64(round), 21))
			client, upstream, end := s.open("")
			ends := [2]*net.TCPConn{client, upstream}
			var data, got [2][]byte
			for i := range data {
				data[i] = make([]byte, r.IntN(1<<(10+r.IntN(12))))
				fill(data[i], r)
			}
			resets, after := r.IntN(2), r.IntN(len(data[0])+len(data[1])+1)
			pause := func(n int) { time.Sleep(time.Duration(n) * time.Microsecond) } // part of the input
			var wg sync.WaitGroup
			for i, c := range ends {
				pauses := [2]int{r.IntN(2000), r.IntN(2000)}
				wg.Go(func() {
					rest := data[i]
					if i == resets {
						rest = rest[:min(after, len(rest))]
					}
					for len(rest) > 0 {
						n, err := c.Write(rest[:min(len(rest), 40_000)])
						if rest = rest[n:]; err != nil {
							break
						}
						pause(pauses[0] % (1 + len(rest)%300))
					}
					if i == resets {
						_ = c.SetLinger(0)
						c.Close()
					}
				})
				wg.Go(func() {
					buf := make([]byte, 100_000)
					for {
						n, err := c.Read(buf)
						if got[i] = append(got[i], buf[:n]...); err != nil {
							break
						}
						pause(pauses[1] % (1 + n%500))
					}
					if i != resets {
						c.Close()
					}
				})
			}
			wg.Wait()
			st := end.wait(t)
			for i, d := range data {
				if !bytes.HasPrefix(d, got[1-i]) {
					t.Fatalf("round %d: the %d bytes that arrived of %d are not their beginning", round, len(got[1-i]), len(d))
				}
			}
			if st.Err == nil || st.Up < int64(len(got[1])) || st.Up > int64(len(data[0])) ||
				st.Down < int64(len(got[0])) || st.Down > int64(len(data[1])) {
				t.Fatalf("round %d: %d bytes up and %d down arrived, stats %+v", round, len(got[1]), len(got[0]), st)
			}
		}
	})
}

// What a side sent before it reset the connection arrives, also where the reset
// is noticed by a failed write.
func TestLastWordsBeforeAReset(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		client, nearClient := s.pair()
		nearUpstream, upstream := s.pair()
		_ = nearClient.SetDeadline(time.Time{})
		_ = nearUpstream.SetDeadline(time.Time{})
		say(t, upstream, "no more, please")
		_ = upstream.SetLinger(0)
		upstream.Close()
		end := make(owner, 1)
		s.engine.Start(Tunnel{Client: nearClient, Upstream: nearUpstream, Head: []byte("question"), Service: s.service, Owner: end})
		defer client.Close()
		expect(t, client, "no more, please")
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Error("the client reads on")
		}
		if st := end.wait(t); st.Err == nil || !strings.Contains(st.Err.Error(), "upstream") || st.Down != 15 {
			t.Errorf("stats %+v", st)
		}
	})
}

// A side that has closed in order takes nothing of what the other still sends; such
// a tunnel ended well.
func TestLastWordsAfterAClose(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		for name, ends := range map[string]func(client, upstream *net.TCPConn) (closes, talks *net.TCPConn){
			"client":   func(c, u *net.TCPConn) (_, _ *net.TCPConn) { return c, u },
			"upstream": func(c, u *net.TCPConn) (_, _ *net.TCPConn) { return u, c },
		} {
			t.Run(name, func(t *testing.T) {
				client, upstream, end := s.open("hello")
				expect(t, upstream, "hello")
				closes, talks := ends(client, upstream)
				closes.Close()
				expectEOF(t, talks)
				for {
					if _, err := io.WriteString(talks, "last words"); err != nil {
						break // the tunnel is closed
					}
					select {
					case st := <-end:
						if st.Err != nil {
							t.Error(st.Err)
						}
						return
					case <-time.After(time.Millisecond):
					}
				}
				if st := end.wait(t); st.Err != nil {
					t.Error(st.Err)
				}
			})
		}
	})
}

// A reset that a write takes, after which a read finds an end, is a reset.
func TestResetTakenByAWrite(t *testing.T) {
	taken, ended := make(chan struct{}), make(chan struct{})
	end := make(owner, 1)
	newRelay(patient).Start(Tunnel{
		Client: fakeConn{closeWrite: func() { close(ended) }},
		Upstream: fakeConn{
			read:  func() (int, error) { <-taken; return 0, io.EOF },
			write: func() (int, error) { close(taken); <-ended; return 0, syscall.ECONNRESET },
		},
		Head: []byte("hello"), Service: new(traffic.Service), Owner: end,
	})
	if st := end.wait(t); !errors.Is(st.Err, syscall.ECONNRESET) {
		t.Errorf("got %+v", st)
	}
}

type fakeConn struct {
	net.Conn
	read, write func() (int, error)
	closeWrite  func()
}

func (c fakeConn) Read([]byte) (int, error)  { return c.read() }
func (c fakeConn) Write([]byte) (int, error) { return c.write() }
func (c fakeConn) CloseWrite() error         { c.closeWrite(); return nil }
func (c fakeConn) Close() error              { return nil }

func random(r *rand.Rand) []byte {
	b := make([]byte, r.IntN(1<<r.IntN(22)))
	fill(b, r)
	return b
}

func fill(b []byte, r *rand.Rand) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

func chop(t *testing.T, c *net.TCPConn, data []byte, r *rand.Rand) {
	for len(data) > 0 {
		n := min(len(data), 1+r.IntN(1<<r.IntN(18)))
		if _, err := c.Write(data[:n]); err != nil {
			t.Errorf("write: %v", err)
			return
		}
		data = data[n:]
		if r.IntN(8) == 0 {
			time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond) // a pause is part of the input
		}
	}
	if err := c.CloseWrite(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func gulp(t *testing.T, c *net.TCPConn, want []byte, r *rand.Rand) {
	var got []byte
	buf := make([]byte, 1<<18)
	for {
		n, err := c.Read(buf[:1+r.IntN(1<<r.IntN(18))])
		got = append(got, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Errorf("read: %v", err)
			return
		}
		if r.IntN(16) == 0 {
			time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d, or they differ", len(got), len(want))
	}
}

// Short tunnels leave no descriptor and no goroutine behind. The environment's
// ESPALIER_SHORT_TUNNELS sets another number of them.
func TestShortTunnelsLeaveNothing(t *testing.T) {
	n := 1000
	if s := os.Getenv("ESPALIER_SHORT_TUNNELS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("ESPALIER_SHORT_TUNNELS: %v", err)
		}
	}
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		before, goroutines := -1, -1
		for i := range n {
			client, upstream, end := s.open("")
			say(t, client, "x")
			expect(t, upstream, "x")
			client.Close()
			upstream.Close()
			end.wait(t)
			if i == 10 {
				before, goroutines = descriptors(t), runtime.NumGoroutine()
			}
		}
		waitFor(t, "end of all goroutines", func() bool { return runtime.NumGoroutine() <= goroutines })
		if after := descriptors(t); after > before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Skip("this platform does not list descriptors")
	}
	return len(entries)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s in time", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// clumsy is an Owner that panics.
type clumsy struct{ owner }

func (c clumsy) TunnelDone(s Stats) {
	c.owner.TunnelDone(s)
	panic("of a test")
}

// A panic costs the tunnel that it was about, and no other.
func TestPanicsAreKept(t *testing.T) {
	for name, newEngine := range testEngines {
		t.Run(name, func(t *testing.T) {
			cfg := patient
			faults := make(chan any, 10)
			cfg.Panicked = func(fault any) { faults <- fault }
			s := newStage(t, newEngine(cfg))
			other, otherUpstream, otherEnd := s.open("")

			client, near := s.pair()
			nearUpstream, upstream := s.pair()
			end := make(owner, 1)
			s.engine.Start(Tunnel{Client: near, Upstream: nearUpstream, Service: s.service, Owner: clumsy{end}})
			say(t, client, "hello")
			expect(t, upstream, "hello")
			client.Close()
			upstream.Close()
			end.wait(t)
			if fault := <-faults; fault != "of a test" {
				t.Errorf("panic %v", fault)
			}

			say(t, other, "still here")
			expect(t, otherUpstream, "still here")
			waitFor(t, "the end of one", func() bool { return s.engine.Len() == 1 })
			other.Close()
			otherUpstream.Close()
			otherEnd.wait(t)
		})
	}
}

// goodbye is a connection whose Close waits for the peer, as that of TLS does, unless what
// carries it is closed.
type goodbye struct {
	*net.TCPConn
	never chan struct{}
}

func (g goodbye) NetConn() net.Conn { return g.TCPConn }
func (goodbye) Handshake() error    { return nil }

func (g goodbye) Close() error {
	if g.TCPConn.SetWriteDeadline(time.Now()) == nil {
		<-g.never
	}
	return nil
}

// A client inside TLS that does not read holds no other tunnel's end up.
func TestCutWaitsForNoGoodbye(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		client, nearClient := s.pair()
		nearUpstream, upstream := s.pair()
		defer client.Close()
		defer upstream.Close()
		_ = nearClient.SetDeadline(time.Time{})
		_ = nearUpstream.SetDeadline(time.Time{})
		never := make(chan struct{})
		defer close(never)
		end := make(owner, 1)
		s.engine.Start(Tunnel{Client: goodbye{nearClient, never}, Upstream: nearUpstream, Service: s.service, Owner: end})
		_, _, other := s.open("")
		s.engine.Cut(cutAll)
		for _, o := range []owner{end, other} {
			if stats := o.wait(t); stats.Err != ErrShutdown {
				t.Errorf("ended with %v", stats.Err)
			}
		}
	})
}

// cutAll picks every tunnel, as Shutdown does.
func cutAll(*traffic.Service, Owner) error { return ErrShutdown }
