package web

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"espalier/proxy/doctor"
	"espalier/proxy/traffic"
	"espalier/web/api"
	"espalier/web/server"
	"espalier/web/signin"
)

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "espalier")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serveControl serves c in dir until the returned function is called.
func serveControl(t *testing.T, dir string, c api.Control) (stop func()) {
	t.Helper()
	l, err := ListenControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := ControlServer(c)
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	return func() { srv.Close(); <-done }
}

func testControl() api.Control {
	return api.Control{
		Status: testStatus, Services: traffic.New().Snapshot, Metrics: prometheus.NewRegistry(),
		Doctor: doctor.NewRunner(func() (*doctor.Doctor, error) { return nil, errors.New("there is none here") }),
		Hosts:  func() []string { return []string{"console.school.example"} }, Log: zap.NewNop(),
		Reload: func() error { return nil }, Drain: func() {},
		RefreshLists: func(context.Context, string) error { return nil },
		SetupLink:    func() (string, time.Time, error) { return "", time.Time{}, signin.ErrUsers },
	}
}

func TestControl(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := shortDir(t)
	c := testControl()
	var reload error
	reloads, drains := 0, 0
	c.Reload = func() error { reloads++; return reload }
	c.Drain = func() { drains++ }
	var refreshed []string
	var refresh error
	c.RefreshLists = func(_ context.Context, name string) error {
		refreshed = append(refreshed, name)
		return refresh
	}
	defer serveControl(t, dir, c)()
	client, ctx := NewControlClient(dir), context.Background()

	st, err := client.Status(ctx)
	if err != nil || st.Node != "proxy-1" || st.UptimeSeconds < 90*60 || st.Tunnels != 3 || !st.Reload.OK {
		t.Errorf("%+v, %v", st, err)
	}
	if err := client.Reload(ctx); err != nil || reloads != 1 {
		t.Errorf("%d reloads, %v", reloads, err)
	}
	reload = errors.New("espalier.yaml:1:1: a: bad\nespalier.yaml:2:1: b: worse")
	var p *server.Problem
	if err := client.Reload(ctx); !errors.As(err, &p) || p.Status != 422 || strings.Join(p.Problems, "\n") != reload.Error() {
		t.Errorf("%#v", err)
	}
	if err := client.RefreshLists(ctx, "a&b"); err != nil || len(refreshed) != 1 || refreshed[0] != "a&b" {
		t.Errorf("refreshed %q, %v", refreshed, err)
	}
	refresh = errors.New("list ads: no answer\nlist games: no answer")
	if err := client.RefreshLists(ctx, ""); !errors.As(err, &p) || p.Status != 502 || strings.Join(p.Problems, "\n") != refresh.Error() {
		t.Errorf("%#v", err)
	}
	if err := client.Drain(ctx); err != nil || drains != 1 {
		t.Errorf("drained %d times, %v", drains, err)
	}
}

func TestControlMethods(t *testing.T) {
	dir := shortDir(t)
	c := testControl()
	c.Reload = func() error { t.Error("reloaded by GET"); return nil }
	c.Drain = func() { t.Error("drained by GET") }
	defer serveControl(t, dir, c)()
	client := NewControlClient(dir)
	for path, want := range map[string]int{"/reload": 405, "/drain": 405, "/": 404} {
		var p *server.Problem
		if err := client.do(context.Background(), "GET", path, nil); !errors.As(err, &p) || p.Status != want {
			t.Errorf("GET %s: %v", path, err)
		}
	}
}

func TestControlSocketFile(t *testing.T) {
	t.Run("only for the own user, gone when closed", func(t *testing.T) {
		dir := shortDir(t)
		stop := serveControl(t, dir, testControl())
		info, err := os.Stat(ControlPath(dir))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		stop()
		if _, err := os.Stat(ControlPath(dir)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	t.Run("left over from a crash", func(t *testing.T) {
		dir := shortDir(t)
		l, err := net.Listen("unix", ControlPath(dir))
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
		if _, err := NewControlClient(dir).Status(context.Background()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("before the restart: %v", err)
		}
		defer serveControl(t, dir, testControl())()
		if _, err := NewControlClient(dir).Status(context.Background()); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	})
	t.Run("of another process", func(t *testing.T) {
		dir := shortDir(t)
		defer serveControl(t, dir, testControl())()
		if l, err := ListenControl(dir); err == nil || !strings.Contains(err.Error(), "another espalier runs") {
			t.Errorf("%v, %v", l, err)
		}
		if _, err := NewControlClient(dir).Status(context.Background()); err != nil {
			t.Errorf("the first no longer answers: %v", err)
		}
	})
	t.Run("not a socket", func(t *testing.T) {
		dir := shortDir(t)
		if err := os.WriteFile(ControlPath(dir), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ListenControl(dir); err == nil || !strings.Contains(err.Error(), "something else is there") {
			t.Error(err)
		}
		if b, _ := os.ReadFile(ControlPath(dir)); string(b) != "precious" {
			t.Errorf("the file holds %q", b)
		}
	})
	t.Run("path too long", func(t *testing.T) {
		dir := filepath.Join(shortDir(t), strings.Repeat("x", 100))
		_, err := ListenControl(dir)
		_, asked := NewControlClient(dir).Status(context.Background())
		for _, err := range []error{err, asked} {
			if err == nil || !strings.Contains(err.Error(), "choose a shorter data directory") {
				t.Error(err)
			}
		}
	})
}

func TestControlClientErrors(t *testing.T) {
	ctx := context.Background()
	dir := shortDir(t)
	if _, err := NewControlClient(dir).Status(ctx); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), dir) {
		t.Errorf("nobody there: %v", err)
	}
	l, err := net.Listen("unix", ControlPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })}
	defer srv.Close()
	go srv.Serve(l)
	if _, err := NewControlClient(dir).Status(ctx); err == nil || !strings.Contains(err.Error(), "not understood") {
		t.Errorf("an answer that is no status: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := NewControlClient(dir).Status(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}
