package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// socket is a listening socket to be passed, as a service manager does.
type socket struct {
	name string
	*net.TCPListener
}

func newSocket(t *testing.T, name string) socket {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return socket{name, l.(*net.TCPListener)}
}

// descriptors are what is to be passed; they stay the test's to close.
func descriptors(t *testing.T, sockets ...socket) (list []*os.File, names string) {
	t.Helper()
	var all []string
	for _, s := range sockets {
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		list, all = append(list, f), append(all, s.name)
	}
	return list, strings.Join(all, ":")
}

// passing makes cmd start as a service manager would that passes descriptors.
func passing(cmd *exec.Cmd, list []*os.File, names string) *exec.Cmd {
	with := exec.Command("/bin/sh", append([]string{"-c", `export LISTEN_PID=$$; exec "$@"`, "sh"}, cmd.Args...)...)
	with.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(list)), "LISTEN_FDNAMES="+names)
	with.ExtraFiles = list
	return with
}

// manager is what a service manager is told.
type manager struct {
	path string
	mu   sync.Mutex
	said []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "espalier") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{path: filepath.Join(dir, "notify")}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.said = append(m.said, string(b[:n]))
			m.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
		os.RemoveAll(dir)
	})
	return m
}

// heard are the states that were told, but for the watchdog, which is counted.
func (m *manager) heard() (states string, alive int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []string
	for _, s := range m.said {
		if s == "WATCHDOG=1" {
			alive++
			continue
		}
		s, _, _ = strings.Cut(s, "\n")
		list = append(list, s)
	}
	return strings.Join(list, " "), alive
}

// Passed sockets take the place of addresses, by name and by address; what is
// missing is opened.
func TestPassedSockets(t *testing.T) {
	at := listen(t, "127.0.0.1:0", echo)
	byName, byAddr, more := newSocket(t, "proxy"), newSocket(t, "espalier.socket"), newSocket(t, "proxy")
	p := prepare(t, loopbackAllowed)
	list, names := descriptors(t, byName, byAddr, more)
	p.spawn(passing(p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0", "--set", "web.public="+byAddr.Addr().String()), list, names))
	p.locate()
	if p.public != byAddr.Addr().String() {
		t.Errorf("the public address is %s, want %s", p.public, byAddr.Addr())
	}
	for _, s := range []socket{byName, more} {
		p.proxy = s.Addr().String()
		status, _, c := p.connect(at.String())
		if err := pingPong(c, "hello"); status != 200 || err != nil {
			t.Errorf("%s: %d, %v", s.Addr(), status, err)
		}
		c.Close()
	}
	for _, addr := range []string{p.public, p.admin} {
		resp, err := http.Get("http://" + addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if st, err := p.status(); err != nil || len(st.Listeners) != 4 {
		t.Errorf("%+v, %v", st.Listeners, err)
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
	// They stay open for the next process.
	c, err := net.Dial("tcp", byName.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// A socket that is for nothing is a mistake that is told.
func TestPassedSocketForNothing(t *testing.T) {
	p := prepare(t, "")
	unix, err := net.Listen("unix", p.config+".sock")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	ofUnix, err := unix.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer ofUnix.Close()
	tcp := newSocket(t, "")
	ofTCP, _ := descriptors(t, tcp)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tt := range []struct {
		name  string
		file  *os.File
		names string
		want  string
	}{
		{"an address of no key", ofTCP[0], "espalier.socket", "passed socket 3 (espalier.socket, listening on " + tcp.Addr().String() + "): is none of proxy.listen, proxy.tls_listen, web.public and web.admin"},
		{"without a name", ofTCP[0], "", "passed socket 3 (LISTEN_FD_3, "},
		{"not of TCP", ofUnix, "proxy", "passed socket 3 (proxy): is a socket of unix, not of TCP"},
		{"no socket", null, "proxy", "passed socket 3 (proxy): is no listening socket of TCP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := passing(p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0"), []*os.File{tt.file}, tt.names)
			_, stderr, code := outputOf(t, cmd)
			if code != 1 || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit status %d, %s\nwant %q", code, stderr, tt.want)
			}
		})
	}
}

// A service manager is told when the process is ready, reloads, stops and lives.
func TestNotify(t *testing.T) {
	m := newManager(t)
	p := prepare(t, loopbackAllowed)
	cmd := p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path, fmt.Sprintf("WATCHDOG_USEC=%d", 40*time.Millisecond/time.Microsecond))
	p.spawn(cmd)
	p.locate()
	hears := func(want string) {
		t.Helper()
		p.await(want, func() bool { got, _ := m.heard(); return got == want })
	}
	hears("READY=1")
	p.await("the watchdog", func() bool { _, alive := m.heard(); return alive > 2 })
	p.signal(syscall.SIGHUP)
	hears("READY=1 RELOADING=1 READY=1")
	p.write("nonsense: true\n") // which it watches
	p.await("the second reload", func() bool { return strings.Contains(p.stderr.String(), "not reloaded") })
	p.await("the second reload to end", func() bool { got, _ := m.heard(); return strings.HasSuffix(got, "READY=1") })
	before, _ := m.heard()
	_, _, tunnel := p.connect(listen(t, "127.0.0.1:0", echo).String())
	p.signal(syscall.SIGTERM)
	hears(before + " STOPPING=1")
	// Reloads go on while it drains, and the manager is not told that it is ready.
	p.reloaded("the file changed", func() { p.write(loopbackAllowed) })
	for range 2 {
		p.reloaded("SIGHUP", func() { p.signal(syscall.SIGHUP) })
		p.reloaded("espalier reload", func() { p.run("reload") })
	}
	if err := pingPong(tunnel, "still here"); err != nil {
		t.Errorf("the tunnel that was open all the time: %v", err)
	}
	tunnel.Close()
	p.exits(0)
	if got, _ := m.heard(); got != before+" STOPPING=1" {
		t.Errorf("the service manager was told %s", got)
	}
}

// reloaded does what makes the process reload, and waits until it has.
func (p *process) reloaded(what string, do func()) {
	p.t.Helper()
	loaded := func() int { return strings.Count(p.stderr.String(), `"msg":"the configuration was reloaded"`) }
	before := loaded()
	do()
	p.await(what, func() bool { return loaded() > before })
}
