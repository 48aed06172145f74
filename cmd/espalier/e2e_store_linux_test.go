package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"espalier/cmd/espalier/report"
	"espalier/policy"
	"espalier/proxy/accesslog"
)

// stored are the records that `espalier logs` finds.
func (p *process) stored(args ...string) []accesslog.Record {
	p.t.Helper()
	out, stderr, code := p.run(append([]string{"logs", "--json", "--limit", "0"}, args...)...)
	if code != 0 {
		p.t.Fatalf("espalier logs: exit status %d, %s", code, stderr)
	}
	var list []accesslog.Record
	if bad, err := accesslog.Read(strings.NewReader(out), func(r *accesslog.Record) error { list = append(list, *r); return nil }); err != nil || bad > 0 {
		p.t.Fatalf("espalier logs: %d bad lines, %v", bad, err)
	}
	return list
}

// awaitStore waits until the store has what the access log has.
func (p *process) awaitStore() {
	p.t.Helper()
	p.await("the store", func() bool {
		list, _ := p.records()
		return len(p.stored()) == len(list)
	})
}

// compareStore fails where the store has not exactly the records of the access
// log, or its sums are not theirs.
func (p *process) compareStore() {
	p.t.Helper()
	logged, _ := p.records()
	ids := map[accesslog.ID]bool{}
	want := map[string]report.Sum{}
	for _, r := range logged {
		ids[r.ID] = true
		sum := want[r.Service]
		sum.Name = r.Service
		sum.Requests, sum.Up, sum.Down = sum.Requests+1, sum.Up+r.Up, sum.Down+r.Down
		if r.Error != "" && r.Action != policy.Deny && r.Action != policy.Challenge {
			sum.Errors++
		}
		want[r.Service] = sum
	}
	stored := p.stored()
	for _, r := range stored {
		if !ids[r.ID] {
			p.t.Errorf("record %v is not in the access log", r.ID)
		}
	}
	if len(stored) != len(logged) {
		p.t.Errorf("%d records are stored, %d logged", len(stored), len(logged))
	}
	out, stderr, code := p.run("traffic", "--json", "--since", "1h")
	var sums report.Traffic
	if err := json.Unmarshal([]byte(out), &sums); err != nil || code != 0 {
		p.t.Fatalf("espalier traffic: %v, exit status %d, %s", err, code, stderr)
	}
	got := map[string]report.Sum{}
	for _, row := range sums.Rows {
		got[row.Name] = row
	}
	if !reflect.DeepEqual(got, want) {
		p.t.Errorf("traffic %+v, of the records %+v", got, want)
	}
}

// A killed process loses and doubles nothing that is in its access log.
func TestStoreAfterKill(t *testing.T) {
	t.Parallel()
	at := listen(t, "127.0.0.1:0", echo)
	p := prepare(t, diskConfig)
	for range 3 {
		p.start()
		client := p.client()
		before := len(p.stored()) // now, for the clients may be done before it is told
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() {
				for range 100 { // until the kill breaks one
					if denied(client, fmt.Sprintf("client%d", i)) != nil {
						return
					}
					c, err := openTunnel(p.proxy, at.String())
					if err != nil {
						return
					}
					err = pingPong(c, "some bytes")
					c.Close()
					if err != nil {
						return
					}
				}
			})
		}
		p.await("some records", func() bool { return len(p.stored()) > before })
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		clients.Wait()
		<-p.ended
		p.stored() // can be searched though nothing runs
	}
	p.start()
	p.awaitStore()
	p.compareStore()
	if v := p.metric(`espalier_store_lag_bytes`); v != 0 {
		t.Errorf("lag %v", v)
	}
	p.signal(os.Interrupt)
	p.exits(0)
	p.compareStore()
}

// While the store's disk is full traffic and the access log go on, and the store
// catches up when there is room.
func TestStoreOnAFullDisk(t *testing.T) {
	t.Parallel()
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=400k"); err != nil {
		t.Skipf("a small disk cannot be mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small, 0) })
	p := prepare(t, diskConfig+"log: {store: {path: "+filepath.Join(small, "store.db")+"}}\n")
	p.start()
	client := p.client()
	ask := func() {
		t.Helper()
		for range 20 {
			if err := denied(client, "a"); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask()
	p.awaitStore()
	rest, err := os.Create(filepath.Join(small, "rest"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(rest, zeros{}, 1<<20); err == nil {
		t.Fatal("the disk is not full")
	}
	rest.Close()
	p.await("storing to fail", func() bool {
		ask()
		return p.metric("espalier_store_failing") == 1
	})
	if p.metric("espalier_store_errors_total") == 0 || p.said("access records cannot be stored") != 1 {
		t.Error("it is not told, or not counted")
	}
	if out, _, _ := p.run("status"); !strings.Contains(out, "Store") {
		t.Errorf("espalier status does not say so:\n%s", out)
	}
	if p.metric(logFailing) != 0 || p.metric(recordsLost) != 0 {
		t.Error("the access log suffers too")
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	p.await("storing to resume", func() bool { return p.metric("espalier_store_failing") == 0 })
	p.awaitStore()
	p.compareStore()
	if n := p.said("access records are stored again"); n != 1 {
		t.Errorf("told %d times that it is over", n)
	}
}

// espalier logs -f shows what comes, as it comes.
func TestFollow(t *testing.T) {
	t.Parallel()
	p := launch(t, diskConfig)
	client := p.client()
	if err := denied(client, "before"); err != nil {
		t.Fatal(err)
	}
	p.awaitStore()
	cmd := p.command("logs", "-f", "--action", "deny", "-c", p.config)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("it ends with %v", err)
		}
	}()
	lines := bufio.NewScanner(out)
	line := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		return lines.Text()
	}
	if head, first := line(), line(); !strings.HasPrefix(head, "TIME") || !strings.Contains(first, "before.denied.example") {
		t.Fatalf("%s\n%s", head, first)
	}
	if err := denied(client, "after"); err != nil {
		t.Fatal(err)
	}
	if next := line(); !strings.Contains(next, "after.denied.example") {
		t.Error(next)
	}
}
