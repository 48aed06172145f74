package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

var nop = zap.NewNop()

// capture is a file in memory.
type capture struct {
	mu     sync.Mutex
	b      bytes.Buffer
	closed bool
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *capture) Close() error { c.closed = true; return nil }

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// disk is a file on a disk with room for so many bytes.
type disk struct {
	capture
	room int
}

var errFull = errors.New("no space left on device")

func (d *disk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(p), d.room)
	d.room -= n
	d.b.Write(p[:n])
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func (d *disk) free(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = n
}

// slow is a file whose writes wait until it is released.
type slow struct {
	capture
	release chan struct{}
}

func (s *slow) Write(p []byte) (int, error) {
	<-s.release
	return s.capture.Write(p)
}

// numbered is a line of about a kilobyte that carries n.
func numbered(n int) []byte {
	return fmt.Appendf(nil, "%d %s\n", n, strings.Repeat(".", 1000))
}

// checkNumbers fails unless text is the lines of numbered from 0 to n-1.
func checkNumbers(t *testing.T, text string, n int) {
	t.Helper()
	var want strings.Builder
	for i := range n {
		want.Write(numbered(i))
	}
	if text != want.String() {
		t.Errorf("the file does not hold lines 0 to %d, each once, whole and in order (%d bytes, want %d)", n-1, len(text), want.Len())
	}
}

func TestFlushInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out capture
		w := newWriter(&out, nop)
		for i := range 3 {
			w.add(numbered(i))
			time.Sleep(flushInterval - time.Millisecond)
			synctest.Wait()
			checkNumbers(t, out.String(), i)
			time.Sleep(time.Millisecond)
			synctest.Wait()
			checkNumbers(t, out.String(), i+1)
			time.Sleep(time.Hour)
		}
		if err := w.close(); err != nil || !out.closed {
			t.Errorf("close: %v, closed %v", err, out.closed)
		}
	})
}

func TestMuchIsWrittenBeforeTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out capture
		w := newWriter(&out, nop)
		defer w.close()
		n := 0
		for size := 0; size < flushSize; n++ {
			w.add(numbered(n))
			size += len(numbered(n))
		}
		synctest.Wait()
		checkNumbers(t, out.String(), n)
	})
}

func TestFullDisk(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines int // before there is room again
	}{
		{"shorter than the memory", 1000},
		{"longer than the memory", maxWaiting / 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, ops := observer.New(zap.InfoLevel)
				out := &disk{room: 10_500} // ends amid a line
				w := newWriter(out, zap.New(core))
				start := time.Now()
				for i := range c.lines {
					w.add(numbered(i))
					if i%100 == 0 {
						time.Sleep(flushInterval)
						synctest.Wait()
					}
				}
				if waited := time.Since(start) - time.Duration(c.lines/100)*flushInterval; waited > time.Second {
					t.Errorf("traffic was held up for %s", waited)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if n := ops.Len(); n != 1 {
					t.Errorf("reported %d times: %v", n, ops.All())
				}
				out.free(1 << 30)
				time.Sleep(flushInterval)
				synctest.Wait()
				kept := c.lines - int(w.lost.Load())
				if kept*1000 < min(maxWaiting, c.lines*1000)-2000 {
					t.Errorf("only %d lines were kept", kept)
				}
				checkNumbers(t, out.String(), kept)
				if last := ops.All()[ops.Len()-1]; ops.Len() != 2 || last.ContextMap()["records_lost"] != uint64(c.lines-kept) {
					t.Errorf("reported: %v", ops.All())
				}
				w.add(numbered(kept))
				if err := w.close(); err != nil {
					t.Error(err)
				}
				checkNumbers(t, out.String(), kept+1)
			})
		})
	}
}

func TestCloseOnFullDiskCountsWhatIsLost(t *testing.T) {
	out := &disk{room: 10_500}
	w := newWriter(out, nop)
	for i := range 20 {
		w.add(numbered(i))
	}
	if err := w.close(); !errors.Is(err, errFull) {
		t.Errorf("close: %v", err)
	}
	if whole := strings.Count(out.String(), "\n"); w.lost.Load() != uint64(20-whole) {
		t.Errorf("%d lines in the file, %d lost", whole, w.lost.Load())
	}
	w.add(numbered(20))
	if w.lost.Load() != 11 {
		t.Error("a record after Close is not counted as lost")
	}
}

func TestHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, ops := observer.New(zap.InfoLevel)
		out := &slow{release: make(chan struct{})}
		w := newWriter(out, zap.New(core))
		n := 0
		add := func() time.Duration {
			start := time.Now()
			w.add(numbered(n))
			n++
			return time.Since(start)
		}
		add()
		time.Sleep(flushInterval) // and the first line hangs on its way to the disk
		synctest.Wait()
		for w.lost.Load() == 0 {
			waited := add()
			if w.lost.Load() == 0 && waited != 0 {
				t.Fatalf("line %d waited %s although there is room", n, waited)
			}
			if w.lost.Load() == 1 && waited != maxBlocked {
				t.Errorf("the line that was lost waited %s", waited)
			}
		}
		kept := n - 1
		if waited := add(); waited != 0 || w.lost.Load() != 2 {
			t.Errorf("the next line waited %s, %d lost", waited, w.lost.Load())
		}
		if kept < maxWaiting/1100 {
			t.Errorf("only %d lines were kept", kept)
		}
		close(out.release)
		synctest.Wait()
		if err := w.close(); err != nil {
			t.Error(err)
		}
		checkNumbers(t, out.String(), kept)
		if ops.Len() != 2 {
			t.Errorf("reported: %v", ops.All())
		}
	})
}

func TestSlowDiskHoldsUpBeforeItLoses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &slow{release: make(chan struct{})}
		w := newWriter(out, nop)
		n := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ; n < 3*maxWaiting/1000; n++ {
				w.add(numbered(n))
			}
		}()
		for open := true; open; {
			select {
			case <-done:
				open = false
			case out.release <- struct{}{}:
				time.Sleep(maxBlocked / 100)
			}
		}
		close(out.release)
		if err := w.close(); err != nil {
			t.Error(err)
		}
		if w.lost.Load() != 0 {
			t.Errorf("%d lines were lost", w.lost.Load())
		}
		checkNumbers(t, out.String(), n)
	})
}

func TestConcurrentWrites(t *testing.T) {
	defer goleak.VerifyNone(t)
	var out capture
	l := newLog(Config{Format: "json"}, "n", &out, nop)
	const writers, each = 8, 500
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				l.Write(&Record{Time: time.Unix(1_700_000_000, 0), ID: ID(i*each + j), Agent: strings.Repeat("x", j%100)})
				if j%100 == 0 {
					if err := l.Flush(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	seen := map[ID]bool{}
	bad, err := Read(strings.NewReader(out.String()), func(r *Record) error { seen[r.ID] = true; return nil })
	if err != nil || bad != 0 || len(seen) != writers*each {
		t.Errorf("%d records, %d bad lines, %v", len(seen), bad, err)
	}
}

func TestMetrics(t *testing.T) {
	l := newLog(Config{Format: "json"}, "n", &disk{}, nop)
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(l)
	l.Write(&samples[0].rec)
	l.Write(&samples[1].rec)
	l.Close()
	l.Write(&samples[2].rec)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		got[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
	}
	if got["espalier_access_records_total"] != 3 || got["espalier_access_records_lost_total"] != 3 || got["espalier_access_log_failing"] != 1 || len(got) != 3 {
		t.Error(got)
	}
}

func TestDisabled(t *testing.T) {
	defer goleak.VerifyNone(t)
	l, err := Open(Config{Format: "json"}, t.TempDir(), "n", nop)
	if err != nil {
		t.Fatal(err)
	}
	l.Write(&samples[0].rec)
	if err := errors.Join(l.Flush(), l.Close()); err != nil {
		t.Error(err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(l)
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}

// null is a disk that costs nothing.
type null struct{}

func (null) Write(p []byte) (int, error) { return len(p), nil }
func (null) Close() error                { return nil }

func BenchmarkWrite(b *testing.B) {
	for _, format := range []string{"json", "squid"} {
		b.Run(format, func(b *testing.B) {
			l := newLog(Config{Format: format}, "n", null{}, nop)
			defer l.Close()
			b.ReportAllocs()
			for b.Loop() {
				l.Write(&samples[0].rec)
			}
		})
	}
}
