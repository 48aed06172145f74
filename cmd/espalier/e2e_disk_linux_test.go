package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// diskConfig denies what ends in .denied.example and lets loopback pass.
const diskConfig = loopbackAllowed + "rules:\n  - {name: no, when: {hosts: [\"*.denied.example\"]}, then: deny}\n"

// denied makes a request that is denied, and has a long record.
func denied(c *http.Client, name string) error {
	r, err := http.NewRequest("GET", "http://"+name+".denied.example/"+strings.Repeat("x", 2000), nil)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", strings.Repeat("agent", 100))
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 403 {
		return fmt.Errorf("%s: %s, %w", name, resp.Status, err)
	}
	return nil
}

// client is one of the proxy's, with connections that stay.
func (p *process) client() *http.Client {
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: p.proxy}), MaxIdleConnsPerHost: 16}
	p.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// said counts a text in the operational log.
func (p *process) said(text string) int { return strings.Count(p.stderr.String(), text) }

// page is the console's first page.
func (p *process) page() string {
	p.t.Helper()
	return p.console("/")
}

// With a full disk traffic goes on, what is lost is counted, shown and reported,
// and writing resumes when there is room.
func TestFullDisk(t *testing.T) {
	for _, disk := range []struct {
		name    string
		prepare func(*testing.T, *process)
		fill    func(*process) error
		room    func(*process) error
	}{
		{
			"no space left",
			func(t *testing.T, p *process) {
				if err := os.Mkdir(p.data, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mount("tmpfs", p.data, "tmpfs", 0, "size=1m"); err != nil {
					t.Skipf("a small disk cannot be mounted: %v", err)
				}
				t.Cleanup(func() { _ = unix.Unmount(p.data, 0) })
			},
			func(p *process) error { // all but what the file's last page has
				rest, err := os.Create(filepath.Join(p.data, "rest"))
				if err != nil {
					return err
				}
				defer rest.Close()
				if _, err := io.CopyN(rest, zeros{}, 1<<20); err == nil {
					return fmt.Errorf("the disk is not full")
				}
				return nil
			},
			func(p *process) error { return unix.Mount("tmpfs", p.data, "tmpfs", unix.MS_REMOUNT, "size=64m") },
		},
		{
			"file may not grow",
			func(*testing.T, *process) {},
			func(p *process) error { return p.limitFiles(1000) },
			func(p *process) error { return p.limitFiles(1 << 30) },
		},
	} {
		t.Run(disk.name, func(t *testing.T) {
			at := listen(t, "127.0.0.1:0", echo)
			p := prepare(t, diskConfig)
			disk.prepare(t, p)
			p.start()
			p.page() // while there is room for its token
			_, _, tunnel := p.connect(at.String())
			client := p.client()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(denied(client, "before"))
			p.record("before.denied.example")
			must(disk.fill(p))

			// More than memory takes.
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for range 8 {
				clients.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if err := denied(client, "meanwhile"); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			p.await("lost records", func() bool { return p.metric(recordsLost) > 0 })
			close(stop)
			clients.Wait()
			must(pingPong(tunnel, "traffic goes on"))
			if v := p.metric(logFailing); v != 1 {
				t.Errorf("%s is %v", logFailing, v)
			}
			lost := p.metric(recordsLost)
			shown := fmt.Sprintf("%.0f", lost)
			if stdout, _, _ := p.run("status"); !strings.Contains(stdout, "Access log     cannot be written since ") || !strings.Contains(stdout, "Records lost   "+shown+" ") {
				t.Errorf("status: %s", stdout)
			}
			if page := p.page(); !strings.Contains(page, "The access log cannot be written") || !strings.Contains(page, shown+" have been lost") {
				t.Errorf("console: %s", page)
			}
			if n := p.said("the access log cannot be written"); n != 1 {
				t.Errorf("reported %d times", n)
			}

			must(disk.room(p))
			p.await("writing", func() bool { return p.metric(logFailing) == 0 })
			must(denied(client, "after"))
			p.record("after.denied.example")
			if v := p.metric(recordsLost); v != lost {
				t.Errorf("%v lost records, there were %v", v, lost)
			}
			list, bad := p.records()
			if all := p.metric(recordsAll); float64(len(list))+lost != all || bad != 0 {
				t.Errorf("%d records in the file and %v lost of %v, %d torn", len(list), lost, all, bad)
			}
			if stdout, _, _ := p.run("status"); strings.Contains(stdout, "cannot be written") || !strings.Contains(stdout, "Records lost   "+shown+" ") {
				t.Errorf("status afterwards: %s", stdout)
			}
			if page := p.page(); !strings.Contains(page, "Access records have been lost") {
				t.Errorf("console afterwards: %s", page)
			}
			if n := p.said("the access log is written again"); n != 1 {
				t.Errorf("its end was reported %d times", n)
			}
			must(pingPong(tunnel, "still"))
			tunnel.Close()
			p.signal(syscall.SIGTERM)
			p.exits(0)
		})
	}
}

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// limitFiles sets the size that no file of the process may outgrow.
func (p *process) limitFiles(size uint64) error {
	return unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: 1 << 30}, nil)
}

// unprivileged lets the process run as nobody where the tests run as root, whom
// no file mode stops.
func (p *process) unprivileged() {
	p.t.Helper()
	p.user = &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid()), NoSetGroups: true}
	if os.Getuid() != 0 {
		return
	}
	const nobody = 65534
	p.user.Uid, p.user.Gid = nobody, nobody
	if err := os.Chmod(filepath.Dir(p.path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	for _, path := range []string{filepath.Dir(p.data), p.config} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			p.t.Fatal(err)
		}
	}
}

// Whatever happens to its files, traffic goes on and records find a place.
func TestDamagedFiles(t *testing.T) {
	log := func(p *process) string { return filepath.Join(p.data, "access.log") }
	for _, damage := range []struct {
		name   string
		do     func(*process) error
		fails  bool                 // nothing can be written
		repair func(*process) error // where it fails
		report string               // in the operational log, once; empty: no word
	}{
		{"log file removed", func(p *process) error { return os.Remove(log(p)) }, false, nil, "the access log was removed"},
		{"log file moved", func(p *process) error { return os.Rename(log(p), log(p)+".old") }, false, nil, "the access log was removed"},
		{"data directory removed", func(p *process) error { return os.RemoveAll(p.data) }, false, nil, "the access log was removed"},
		{"data directory read-only", func(p *process) error { return os.Chmod(p.data, 0o500) }, false, nil, ""},
		{
			"log file removed and data directory read-only",
			func(p *process) error {
				if err := os.Remove(log(p)); err != nil {
					return err
				}
				return os.Chmod(p.data, 0o500)
			},
			true,
			func(p *process) error { return os.Chmod(p.data, 0o700) },
			"the access log cannot be written",
		},
	} {
		t.Run(damage.name, func(t *testing.T) {
			p := prepare(t, diskConfig)
			p.unprivileged()
			p.start()
			t.Cleanup(func() { _ = os.Chmod(p.data, 0o700) })
			client := p.client()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(denied(client, "before"))
			p.record("before.denied.example")
			must(damage.do(p))
			must(denied(client, "after"))
			if damage.fails {
				p.await("the failure", func() bool { return p.metric(logFailing) == 1 })
				must(denied(client, "later"))
				must(damage.repair(p))
			}
			p.record("after.denied.example")
			if damage.fails {
				p.record("later.denied.example")
			}
			if lost, failing := p.metric(recordsLost), p.metric(logFailing); lost != 0 || failing != 0 {
				t.Errorf("%v records lost, failing %v", lost, failing)
			}
			if damage.report != "" && p.said(damage.report) != 1 || damage.report == "" && p.said("access log") != 0 {
				t.Errorf("log: %s", p.stderr.String())
			}
		})
	}
}

// A data directory that cannot be used is told at the start.
func TestStartWithoutDisk(t *testing.T) {
	p := prepare(t, "")
	p.unprivileged()
	if err := os.Mkdir(p.data, 0o500); err != nil {
		t.Fatal(err)
	}
	cmd := p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0")
	_, stderr, code := outputOf(t, cmd)
	if code != 1 || !strings.Contains(stderr, p.data) || !strings.Contains(stderr, "permission denied") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}
