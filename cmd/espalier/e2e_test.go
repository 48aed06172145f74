package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"espalier/proxy/accesslog"
	"espalier/web"
	"espalier/web/api"
	"espalier/web/signin"
)

// patience bounds every wait in these tests; none of them takes that long unless
// something hangs.
const patience = time.Minute

// binary builds the program as it is, with the race detector where the tests
// have it.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("ESPALIER_TEST_BINARY"); path != "" { // in a namespace
		return path, nil
	}
	var err error
	if binaryDir, err = os.MkdirTemp("", "espalier-binary"); err != nil {
		return "", err
	}
	path := filepath.Join(binaryDir, "espalier")
	args := []string{"build", "-o", path}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" {
				args = append(args, "-race")
			}
		}
	}
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

var binaryDir string

// TestMain runs the tests and removes what binary has built. The scripts run the
// program inside the test's own executable.
func TestMain(m *testing.M) {
	// The race detector sleeps a second before a program ends, in case that something
	// goes on meanwhile, and these tests end hundreds.
	os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=20"))
	testscript.Main(cleaning{m}, map[string]func(){"espalier": main})
}

type cleaning struct{ *testing.M }

func (c cleaning) Run() int {
	defer func() {
		if binaryDir != "" {
			os.RemoveAll(binaryDir)
		}
	}()
	return c.M.Run()
}

// process is a running espalier.
type process struct {
	t      *testing.T
	path   string // of the program
	data   string
	config string
	user   *syscall.Credential // nil: who runs the tests

	cmd    *exec.Cmd
	stderr lockedBuffer
	ended  chan struct{} // closed when it has ended, after err is set
	err    error

	proxy, public, admin string
	token                string // of the API, once console was called
}

// lockedBuffer is read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// launch starts the program with a configuration of its own, at free ports.
func launch(t *testing.T, config string) *process {
	t.Helper()
	p := prepare(t, config)
	p.start()
	return p
}

// prepare is launch without the start.
func prepare(t *testing.T, config string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "espalier") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &process{t: t, path: path, data: filepath.Join(dir, "data"), config: filepath.Join(dir, "espalier.yaml")}
	p.write(config)
	return p
}

// write writes the configuration file.
func (p *process) write(config string) {
	p.t.Helper()
	if err := os.WriteFile(p.config, []byte(p.whole(config)), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// whole adds to a configuration what every one of these tests needs.
func (p *process) whole(config string) string {
	return "data: " + p.data + "\nweb: {public: [\"127.0.0.1:0\"], admin: [\"127.0.0.1:0\"]}\n" + config
}

func (p *process) start() {
	p.t.Helper()
	p.spawn(p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0"))
	p.locate()
}

// spawn starts cmd, which is this program.
func (p *process) spawn(cmd *exec.Cmd) {
	p.t.Helper()
	p.cmd = cmd
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan struct{})
	p.ended = ended
	go func() {
		p.err = cmd.Wait()
		close(ended)
	}()
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if log := p.stderr.String(); p.t.Failed() || strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
			p.t.Errorf("standard error of espalier:\n%s", log)
		}
	})
}

// locate waits for the control socket, and asks it for the listeners.
func (p *process) locate() {
	p.t.Helper()
	var st api.Status
	p.await("the control socket", func() bool {
		var err error
		st, err = p.status()
		return err == nil
	})
	for _, l := range st.Listeners {
		switch l.Purpose {
		case "proxy":
			p.proxy = l.Address
		case "public":
			p.public = l.Address
		case "admin":
			p.admin = l.Address
		}
	}
}

func (p *process) status() (api.Status, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	return web.NewControlClient(p.data).Status(ctx)
}

// await waits until cond holds, or the process has ended.
func (p *process) await(what string, cond func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		select {
		case <-p.ended:
			p.t.Fatalf("espalier ended (%v) before %s", p.err, what)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			p.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exits waits for the end and compares the exit status.
func (p *process) exits(code int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatal("espalier does not end")
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit status %d (%v), want %d", got, p.err, code)
	}
}

// run runs another command of the program against this process.
func (p *process) run(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	return outputOf(p.t, p.command(append(args, "-c", p.config)...))
}

// command is the program with none of the tests' own settings.
func (p *process) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.path, args...)
	if p.user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.user}
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ESPALIER_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

func outputOf(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// metric is the value of a series in /metrics, 0 where there is none.
func (p *process) metric(series string) float64 {
	p.t.Helper()
	resp, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				p.t.Fatalf("%s: %v", lines.Text(), err)
			}
			return v
		}
	}
	if err := lines.Err(); err != nil {
		p.t.Fatal(err)
	}
	return 0
}

// console is what the console answers at a path to whoever may see it.
func (p *process) console(path string) string {
	p.t.Helper()
	if p.token == "" {
		var err error
		if p.token, err = signin.CreateToken(p.data, "test", signin.Viewer, 0); err != nil {
			p.t.Fatal(err)
		}
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+p.admin+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// Series of the access log.
const (
	logFailing  = "espalier_access_log_failing"
	recordsLost = "espalier_access_records_lost_total"
	recordsAll  = "espalier_access_records_total"
)

// records reads the access log; bad is the number of lines that are none.
func (p *process) records() (list []accesslog.Record, bad int) {
	p.t.Helper()
	f, err := os.Open(filepath.Join(p.data, "access.log"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0
	}
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	bad, err = accesslog.Read(f, func(r *accesslog.Record) error {
		list = append(list, *r)
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return list, bad
}

// record waits for the record of a host.
func (p *process) record(host string) accesslog.Record {
	p.t.Helper()
	var found accesslog.Record
	p.await("the record of "+host, func() bool {
		list, _ := p.records()
		for _, r := range list {
			if r.Host == host {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// dial opens a connection to the proxy.
func (p *process) dial() net.Conn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.proxy)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// connect asks for a tunnel, and returns the status and the connection.
func (p *process) connect(target string) (status int, proxyStatus string, c net.Conn) {
	p.t.Helper()
	c = p.dial()
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Proxy-Status"), c
}

// pingPong sends text through an echo and reads it back.
func pingPong(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("received %q, want %q", got, text)
	}
	return nil
}

// listen serves each connection to a loopback address by handle, until the end
// of the test.
func listen(t *testing.T, addr string, handle func(net.Conn)) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var handlers sync.WaitGroup
	handlers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			handlers.Go(func() {
				handle(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		handlers.Wait()
	})
	return l.Addr().(*net.TCPAddr)
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// ownLoopback is a loopback address that no other run of these tests uses, for
// services whose ports the catalogue names.
func ownLoopback(t *testing.T, port int) string {
	t.Helper()
	addr := fmt.Sprintf("127.78.%d.%d", os.Getpid()>>8&0xff, os.Getpid()&0xff)
	l, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(port)))
	if err != nil {
		t.Skipf("this system has the one loopback address only, and port %d is taken: %v", port, err)
	}
	l.Close()
	return addr
}

// need skips a test where a program is missing that `make deps` installs; in CI
// the test fails.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("%s is missing (make deps installs it)", program)
	}
}
