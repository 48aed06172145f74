package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"espalier/proxy/accesslog"
)

// soak is how long load lasts: a few seconds, or ESPALIER_SOAK, such as 60s.
func soak(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("ESPALIER_SOAK")
	if text == "" {
		return 4 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("ESPALIER_SOAK: %v", err)
	}
	return d
}

// pages answers requests with a page, on connections that stay open.
func pages(page string) func(net.Conn) {
	return func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(page), page); err != nil {
				return
			}
		}
	}
}

// A thousand tunnels and two hundred clients with kept connections: no error, no
// goroutine that stays, and every byte counted once.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const tunnels, keepers = 1000, 200
	at := listen(t, "127.0.0.1:0", echo)
	page := strings.Repeat("page", 1000)
	plain := listen(t, "127.0.0.1:0", pages(page))
	p := launch(t, "egress: {allow: [loopback], hosts: {\"*.push.apple.com\": 127.0.0.1}}\n")
	const goroutines = "go_goroutines"
	before := p.metric(goroutines)

	var tunnelUp, tunnelDown, plainUp, plainDown, requests atomic.Int64
	var failed atomic.Pointer[error]
	fail := func(err error) { failed.CompareAndSwap(nil, &err) }
	stop := make(chan struct{})
	resting := func(d time.Duration) bool { // up to d, so that clients do not march in step
		select {
		case <-stop:
			return false
		case <-time.After(d/2 + rand.N(d/2)):
			return true
		}
	}
	var clients, opened sync.WaitGroup
	opened.Add(tunnels)
	for i := range tunnels {
		clients.Go(func() {
			c, err := openTunnel(p.proxy, fmt.Sprintf("%d-courier.push.apple.com:%d", i, at.Port))
			opened.Done()
			if err != nil {
				fail(err)
				return
			}
			defer c.Close()
			text := strings.Repeat(fmt.Sprintf("%d;", i), 10+i)
			for resting(time.Second) {
				_ = c.SetDeadline(time.Now().Add(patience))
				if err := pingPong(c, text); err != nil {
					fail(err)
					return
				}
				tunnelUp.Add(int64(len(text)))
				tunnelDown.Add(int64(len(text)))
			}
			// An orderly end, after which everything has been counted.
			if err := errors.Join(c.(*net.TCPConn).CloseWrite(), atEnd(c)); err != nil {
				fail(err)
			}
		})
	}
	opened.Wait()
	if n := p.metric(`espalier_tunnels{service="apple-other"}`); n != tunnels && failed.Load() == nil {
		t.Errorf("%v open tunnels in /metrics, want %d", n, tunnels)
	}
	for i := range keepers {
		clients.Go(func() {
			c, err := net.Dial("tcp", p.proxy)
			if err != nil {
				fail(err)
				return
			}
			defer c.Close()
			in := bufio.NewReader(c)
			for resting(400 * time.Millisecond) {
				method, body := "GET", ""
				if i%4 == 0 {
					method, body = "POST", strings.Repeat("up", i)
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				fmt.Fprintf(c, "%s http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, plain.Port, len(body), body)
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					fail(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || string(got) != page {
					fail(fmt.Errorf("%s: %d bytes of a page, %w", resp.Status, len(got), err))
					return
				}
				requests.Add(1)
				plainUp.Add(int64(len(body)))
				plainDown.Add(int64(len(page)))
			}
		})
	}
	time.AfterFunc(soak(t), func() { close(stop) })
	clients.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	// 3 of 4 requests take another way through the proxy; both count the same.
	for _, c := range []struct {
		service, direction string
		want               int64
	}{
		{"apple-other", "up", tunnelUp.Load()}, {"apple-other", "down", tunnelDown.Load()},
		{"other", "up", plainUp.Load()}, {"other", "down", plainDown.Load()},
	} {
		series := fmt.Sprintf("espalier_bytes_total{direction=%q,service=%q}", c.direction, c.service)
		if got := p.metric(series); got != float64(c.want) || c.want == 0 {
			t.Errorf("%s is %v, the clients counted %d", series, got, c.want)
		}
	}
	p.await("the last records", func() bool { list, _ := p.records(); return int64(len(list)) >= tunnels+requests.Load() })
	list, bad := p.records()
	if int64(len(list)) != tunnels+requests.Load() || bad != 0 {
		t.Errorf("%d records and %d bad lines, want %d and none", len(list), bad, tunnels+requests.Load())
	}
	for _, r := range list {
		if r.Error != "" || r.Status != 200 {
			t.Errorf("record %+v", r)
		}
	}
	p.signal(syscall.SIGHUP) // closes connections that are kept for the next request
	p.await("goroutines to end", func() bool { return p.metric(goroutines) <= before+10 })
	p.signal(syscall.SIGTERM)
	p.exits(0)
	t.Logf("%d bytes in tunnels, %d requests", tunnelUp.Load(), requests.Load())
}

// atEnd reads an orderly end.
func atEnd(c net.Conn) error {
	rest, err := io.ReadAll(c)
	if len(rest) > 0 {
		err = errors.Join(err, fmt.Errorf("received %d bytes too many", len(rest)))
	}
	return err
}

// openTunnel is connect for a goroutine of its own.
func openTunnel(proxy, target string) (net.Conn, error) {
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := func() error {
		if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
			return err
		}
		const want = "HTTP/1.1 200 Connection established\r\n\r\n"
		got := make([]byte, len(want))
		if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
			return fmt.Errorf("CONNECT %s: %q, %w", target, got[:n], err)
		}
		return nil
	}(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Killed under load, the log lacks the last second at most, and the next start
// goes on with it.
func TestKill(t *testing.T) {
	const clients = 8
	plain := listen(t, "127.0.0.1:0", pages("page"))
	p := launch(t, loopbackAllowed)
	type done struct {
		url string
		at  time.Time
	}
	ledgers := make([][]done, clients)
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() {
			c, err := net.Dial("tcp", p.proxy)
			if err != nil {
				return
			}
			defer c.Close()
			in := bufio.NewReader(c)
			for n := 0; ; n++ {
				url := fmt.Sprintf("http://127.0.0.1:%d/%d/%d", plain.Port, i, n)
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", url)
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					return // killed
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					return
				}
				ledgers[i] = append(ledgers[i], done{url, time.Now()})
				time.Sleep(2 * time.Millisecond) // a log of bearable size
			}
		})
	}
	time.Sleep(2000 * time.Millisecond) // under load; the log is written every half second
	killed := time.Now()
	p.signal(syscall.SIGKILL)
	<-p.ended
	running.Wait()

	check := func(when string, maxBad int) (records int) {
		t.Helper()
		list, bad := p.records()
		if bad > maxBad {
			t.Errorf("%s: %d lines are no record", when, bad)
		}
		seen := map[string]bool{}
		ids := map[accesslog.ID]bool{}
		for _, r := range list {
			if seen[r.URL] || ids[r.ID] {
				t.Errorf("%s: %s stands twice", when, r.URL)
			}
			seen[r.URL], ids[r.ID] = true, true
		}
		missing, oldest := 0, killed
		for _, d := range slices.Concat(ledgers...) {
			if !seen[d.url] {
				missing++
				oldest = slices.MinFunc([]time.Time{oldest, d.at}, time.Time.Compare)
			}
		}
		if age := killed.Sub(oldest); age > time.Second {
			t.Errorf("%s: the oldest of %d missing records is of %s before the end", when, missing, age)
		}
		return len(list)
	}
	total := 0
	for _, l := range ledgers {
		total += len(l)
	}
	before := check("after the end", 1)
	if before == 0 || before > total+clients {
		t.Errorf("%d records of %d requests", before, total)
	}
	t.Logf("%d requests, %d records", total, before)

	p.start() // at other ports, and with what the other process left in the directory
	status, _, c := p.connect("10.0.0.1:443")
	c.Close()
	if status != 403 {
		t.Errorf("after the next start: status %d", status)
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
	if after := check("after the next start", 1); after != before+1 {
		t.Errorf("%d records after the next start, want %d", after, before+1)
	}
	list, _ := p.records()
	if last := list[len(list)-1]; last.Host != "10.0.0.1" {
		t.Errorf("the last record is %+v", last)
	}
}
