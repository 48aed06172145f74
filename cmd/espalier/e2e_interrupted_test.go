package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A tunnel that a process leaves open has its record when the next one starts,
// and only one.
func TestInterruptedTunnels(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(p *process)
	}{
		{"process-killed", func(p *process) { p.signal(syscall.SIGKILL) }},
		{"process-second-signal", func(p *process) {
			p.signal(syscall.SIGTERM)
			p.await("draining", func() bool { st, err := p.status(); return err == nil && st.Draining })
			p.signal(syscall.SIGTERM)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at := listen(t, "127.0.0.1:0", echo)
			p := launch(t, loopbackAllowed)
			for range 2 {
				_, _, c := p.connect(at.String())
				defer c.Close()
				if err := pingPong(c, "before"); err != nil {
					t.Fatal(err)
				}
			}
			// Access records, and so this journal, may be as late as a second.
			p.await("the journal to have both", func() bool { return bytes.Count(p.journals(), []byte("\n=")) == 2 })
			tt.end(p)
			<-p.ended
			written, _ := p.records()
			p.start()
			p.await("two records", func() bool { list, _ := p.records(); return len(list) == 2 })
			if left := float64(2 - len(written)); p.metric("espalier_access_records_total") != left ||
				p.metric(`espalier_requests_total{action="tunnel",service="other"}`) != left {
				t.Errorf("%v records were written at the start; the counters say %v and %v", left,
					p.metric("espalier_access_records_total"), p.metric(`espalier_requests_total{action="tunnel",service="other"}`))
			}
			p.signal(syscall.SIGKILL) // the journal of the first may be there still
			<-p.ended
			p.start()
			_, _, c := p.connect(at.String())
			c.Close()
			p.await("the record of another", func() bool { list, _ := p.records(); return len(list) > 2 })
			p.signal(syscall.SIGTERM)
			p.exits(0)
			list, bad := p.records()
			if bad != 0 || len(list) != 3 || list[0].ID == list[1].ID {
				t.Fatalf("%d bad lines, records %+v, want three", bad, list)
			}
			for _, rec := range list[:2] {
				if rec.Error != "interrupted" || rec.Up != 6 || rec.Down != 6 || rec.Status != 200 || rec.Duration <= 0 || !rec.Upstream.IsValid() {
					t.Errorf("%+v", rec)
				}
			}
			if list[2].Error != "" {
				t.Errorf("%+v", list[2])
			}
			if left, _ := filepath.Glob(filepath.Join(p.data, "tunnels-*")); left != nil {
				t.Errorf("%v are left", left)
			}
		})
	}
}

// journals is what the journals of open tunnels have.
func (p *process) journals() []byte {
	var all strings.Builder
	paths, _ := filepath.Glob(filepath.Join(p.data, "tunnels-*.journal"))
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		all.Write(text)
	}
	return []byte(all.String())
}
