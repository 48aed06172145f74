package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Many clients at a time: everybody gets what is theirs, every byte is counted
// once, and nothing is left behind (TestMain looks for goroutines).
func TestManyClients(t *testing.T) {
	const tunnels, keepers, rounds = 200, 40, 20
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		page := strings.Repeat("page", 3000)
		plain := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, page)
		})
		r := start(t, setup{hosts: map[string]string{"*.push.apple.com": "127.0.0.1"}})
		var up, down atomic.Int64
		var clients sync.WaitGroup
		for i := range tunnels {
			clients.Go(func() {
				c := r.dial()
				defer c.Close()
				c.send(connectTo(fmt.Sprintf("%d.push.apple.com:%d", i, at.Port())))
				c.expect(established)
				for k := range rounds {
					text := strings.Repeat(fmt.Sprintf("%d/%d;", i, k), 1+k*k*10)
					c.send(text)
					c.expect(text)
					up.Add(int64(len(text)))
					down.Add(int64(len(text)))
				}
				c.finish()
				c.expectEnd()
			})
		}
		for i := range keepers {
			clients.Go(func() {
				c := r.dial()
				defer c.Close()
				for range rounds {
					method, body := "GET", ""
					if i%2 == 1 {
						method, body = "POST", "upload"
					}
					c.send(fmt.Sprintf("%s http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, plain, len(body), body))
					if a := c.answer(method); a.body != page || a.err != nil {
						t.Errorf("%s: %d bytes, %v", a.Status, len(a.body), a.err)
						return
					}
					up.Add(int64(len(body)))
					down.Add(int64(len(page)))
				}
			})
		}
		clients.Wait()
		if t.Failed() {
			return
		}
		records := r.stop()
		if len(records) != tunnels+keepers*rounds {
			t.Errorf("%d records, want %d", len(records), tunnels+keepers*rounds)
		}
		for _, rec := range records {
			up.Add(-rec.Up)
			down.Add(-rec.Down)
			if rec.Error != "" {
				t.Errorf("record %+v", rec)
			}
		}
		if up.Load() != 0 || down.Load() != 0 {
			t.Errorf("of what clients sent %d bytes are not in the records, of what they received %d", up.Load(), down.Load())
		}
	})
}
