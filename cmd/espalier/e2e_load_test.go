package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
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
