package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"espalier/pac/health"
	"espalier/policy/lists"
	"espalier/proxy/traffic"
	"espalier/web"
	"espalier/web/api"
	"espalier/web/public"
)

// startControl serves a control socket in a new data directory.
func startControl(t *testing.T, st api.Status, reload func() error, drain func()) (dataDir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "espalier") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := web.ListenControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := web.ControlServer(api.Control{
		Status: func() api.Status { return st }, Services: traffic.New().Snapshot,
		Metrics: prometheus.NewRegistry(), Log: zap.NewNop(), Reload: reload, Drain: drain,
	})
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return dir
}

// output returns what the command made by build prints.
func output(build func(dataDirOf) *cobra.Command, dataDir string, args ...string) (string, error) {
	cmd := build(func(*cobra.Command) (string, error) { return dataDir, nil })
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs(append([]string{}, args...)) // nil would be those of the test
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.Execute()
	return out.String(), err
}

var runningStatus = api.Status{
	Version: "v1", Node: "proxy-1", Started: time.Now().Add(-time.Hour), Tunnels: 7,
	PACURL: "http://192.0.2.1:8080/proxy.pac", Proxy: "192.0.2.1:3128",
	Listeners: []api.Listener{{Purpose: "proxy", Address: "[::]:3128"}, {Purpose: "admin", Address: "127.0.0.1:8081"}},
	Reload:    api.Reload{OK: true, File: "espalier.yaml", Time: time.Now(), Loaded: time.Now()},
}

func TestStatusCommand(t *testing.T) {
	failed := runningStatus
	failed.PACURL, failed.Draining = "", true
	failed.AccessLog = api.AccessLog{Error: "no space left on device", Since: time.Now(), Lost: 12}
	failed.PACProxies = []health.Status{{Proxy: "a.example:3128", Up: true}, {Proxy: "b.example:3128", Since: time.Now(), Error: "refused"}}
	failed.PACFetches = []public.Fetches{
		{Site: "default", Agent: "apple", Count: 2, Last: time.Now()}, {Site: "north", Agent: "none", Count: 1, Last: time.Now()},
	}
	failed.Lists = []lists.Status{
		{Name: "ads", Entries: 12, BadLines: 1, Loaded: time.Now()},
		{Name: "old", Entries: 1, BadLines: 2, Loaded: time.Now(), Stale: true, Error: "no answer"},
		{Name: "new", Source: "/new", Error: "/new is a web page, no list"},
	}
	failed.CA = &api.CA{Warnings: []string{"the CA expires in 7 days"}}
	failed.Reload.OK, failed.Reload.Problems = false, []string{"espalier.yaml:3:1: pacc: unknown key"}
	for _, tt := range []struct {
		name string
		st   api.Status
		want []string
	}{
		{"running", runningStatus, []string{
			"proxy-1  running for 1h0m", "PAC URL        http://192.0.2.1:8080/proxy.pac\n", "Proxy          192.0.2.1:3128\n",
			"Open tunnels   7\n", "Listening      proxy  [::]:3128\n", "admin  127.0.0.1:8081\n", "Configuration  espalier.yaml, loaded ",
		}},
		{"draining, after a bad reload", failed, []string{
			"proxy-1  draining for", "none: web.public is empty, or", "failed; the configuration before it is in force", "espalier.yaml:3:1: pacc: unknown key\n",
			"Access log     cannot be written since ", ": no space left on device\n", "Records lost   12 since the start",
			"Lists          ads, 12 entries, loaded 20", ", 1 bad line: ok\n", "old, 1 entry, loaded 20", ", 2 bad lines: stale: no answer\n",
			"new: not loaded, rules that name it match nothing: /new is a web page, no list\n",
			"b.example:3128 is not well since ", ", so that it stands last: refused\n",
			"PAC fetched    2 times by apple, site default, last 20", "1 time by none, site north, last 20",
			"CA             the CA expires in 7 days\n",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := startControl(t, tt.st, nil, nil)
			out, err := output(statusCommand, dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is missing in\n%s", want, out)
				}
			}
		})
	}
}

func TestStatusCommandJSON(t *testing.T) {
	out, err := output(statusCommand, startControl(t, runningStatus, nil, nil), "--json")
	if err != nil {
		t.Fatal(err)
	}
	var st api.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil || st.Node != "proxy-1" || st.Tunnels != 7 || st.UptimeSeconds < 3600 || !st.Reload.OK {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestReloadCommand(t *testing.T) {
	var fault error
	dir := startControl(t, runningStatus, func() error { return fault }, nil)
	if out, err := output(reloadCommand, dir); err != nil || !strings.Contains(out, "in force") {
		t.Errorf("%q, %v", out, err)
	}
	fault = errors.New("espalier.yaml:1:1: a: bad\nespalier.yaml:2:1: b: worse")
	out, err := output(reloadCommand, dir)
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != exitNo || out != "" {
		t.Fatalf("%q, %v", out, err)
	}
	if want := "the configuration was not taken over; the one before stays in force\n" + fault.Error(); err.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", err, want)
	}
}

func TestDrainCommand(t *testing.T) {
	var drains atomic.Int32
	dir := startControl(t, runningStatus, nil, func() { drains.Add(1) })
	if out, err := output(drainCommand, dir); err != nil || !strings.HasPrefix(out, "draining") || drains.Load() != 1 {
		t.Errorf("%q, %v, drained %d times", out, err, drains.Load())
	}
}

func TestControlCommandsWithoutProcess(t *testing.T) {
	for name, build := range map[string]func(dataDirOf) *cobra.Command{
		"status": statusCommand, "reload": reloadCommand, "drain": drainCommand,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := output(build, t.TempDir())
			var exit *exitError
			if !errors.As(err, &exit) || exit.code != exitNo || !errors.Is(err, web.ErrNotRunning) {
				t.Errorf("%v", err)
			}
		})
	}
}
