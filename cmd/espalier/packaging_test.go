package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"espalier/configs"
	"espalier/policy/hostclass"
)

// What the packages install as configuration and examples is valid, beside the files
// that the examples speak of.
func TestPackagedConfigurations(t *testing.T) {
	files, err := filepath.Glob("../../packaging/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	// The one in the ConfigMap, which is the last of its keys.
	manifest, err := os.ReadFile("../../packaging/kubernetes/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, inner, found := strings.Cut(string(manifest), "espalier.yaml: |\n")
	mapped := filepath.Join(t.TempDir(), "configmap.yaml")
	if err := os.WriteFile(mapped, []byte(strings.ReplaceAll("\n"+inner, "\n    ", "\n")), 0o600); err != nil || !found {
		t.Fatal(err, found)
	}
	for _, file := range append(files, mapped, "../../packaging/espalier.yaml", "../../packaging/container/espalier.yaml") {
		t.Run(filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file), func(t *testing.T) {
			dir := t.TempDir()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(dir, "espalier.yaml")
			for path, text := range map[string][]byte{name: text, filepath.Join(dir, "ldap.password"): []byte("secret\n")} {
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			data := "data=" + filepath.Join(dir, "data")
			for _, args := range [][]string{{"ca", "init"}, {"validate"}} {
				root, out := rootCommand(), &bytes.Buffer{}
				root.SetOut(out)
				root.SetErr(out)
				root.SetArgs(append(args, "-c", name, "--set", data))
				if code := execute(root); code != 0 {
					t.Errorf("%s: exit status %d: %s", args, code, out)
				}
			}
		})
	}
}

// The manifests agree with one another and with the configuration beside them: a pod has
// time to drain, and everything speaks of the ports that the program listens on.
func TestKubernetesManifests(t *testing.T) {
	read := func(name string, to any) {
		t.Helper()
		text, err := os.ReadFile("../../packaging/kubernetes/" + name)
		if err == nil {
			err = yaml.Unmarshal(text, to)
		}
		if err != nil {
			t.Fatal(name, err)
		}
	}
	var config struct{ Data map[string]string }
	read("config.yaml", &config)
	var deployment struct {
		Spec struct {
			Template struct {
				Metadata struct{ Labels map[string]string }
				Spec     struct {
					Grace      int `yaml:"terminationGracePeriodSeconds"`
					Containers []struct {
						Ports []struct {
							Name string
							Port int `yaml:"containerPort"`
						}
						Lifecycle struct {
							PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
						}
						ReadinessProbe struct {
							HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
						} `yaml:"readinessProbe"`
					}
				}
			}
		}
	}
	read("deployment.yaml", &deployment)
	file := filepath.Join(t.TempDir(), "espalier.yaml")
	if err := os.WriteFile(file, []byte(config.Data["espalier.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := configs.Load(configs.Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	pod := deployment.Spec.Template.Spec
	container := pod.Containers[0]
	stop := time.Duration(container.Lifecycle.PreStop.Sleep.Seconds)*time.Second + loaded.Config.Proxy.DrainTimeout
	if grace := time.Duration(pod.Grace) * time.Second; grace <= stop {
		t.Errorf("terminationGracePeriodSeconds is %s; preStop and proxy.drain_timeout together take %s", grace, stop)
	}
	ports := map[string]int{}
	for _, p := range container.Ports {
		ports[p.Name] = p.Port
	}
	for name, addrs := range map[string][]string{"proxy": loaded.Config.Proxy.Listen, "pac": loaded.Config.Web.Public} {
		if want := []string{fmt.Sprintf(":%d", ports[name])}; !slices.Equal(addrs, want) {
			t.Errorf("%s: the program listens on %v, the container has %v", name, addrs, want)
		}
	}
	if probe := container.ReadinessProbe.HTTPGet; probe.Port != "pac" || probe.Path != "/readyz" {
		t.Errorf("the readiness probe asks %+v", probe)
	}

	var service struct {
		Spec struct {
			Selector map[string]string
			Ports    []struct {
				Port       int
				TargetPort string `yaml:"targetPort"`
			}
		}
	}
	read("service.yaml", &service)
	for _, p := range service.Spec.Ports {
		if ports[p.TargetPort] != p.Port {
			t.Errorf("the service has port %d for %s, which is %d", p.Port, p.TargetPort, ports[p.TargetPort])
		}
	}
	var network struct {
		Spec struct {
			PodSelector struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			} `yaml:"podSelector"`
			Ingress []struct{ Ports []struct{ Port int } }
			Egress  []struct {
				To []struct {
					IPBlock struct{ Except []string } `yaml:"ipBlock"`
				}
			}
		}
	}
	read("network.yaml", &network)
	for _, p := range network.Spec.Ingress[0].Ports {
		if p.Port != ports["proxy"] && p.Port != ports["pac"] {
			t.Errorf("the network policy lets port %d in", p.Port)
		}
	}
	if got := len(network.Spec.Ingress[0].Ports); got != len(ports) {
		t.Errorf("the network policy lets %d ports in, want %d", got, len(ports))
	}
	var except []string
	for _, egress := range network.Spec.Egress {
		for _, to := range egress.To {
			except = append(except, to.IPBlock.Except...)
		}
	}
	for _, b := range hostclass.Blocks {
		if prefix := b.Prefix.String(); b.Class.Local() && b.Class != hostclass.Loopback && !slices.Contains(except, prefix) {
			t.Errorf("the network policy lets the proxy out to %s (%s)", prefix, b.Class)
		}
	}
	var disruption struct {
		Spec struct {
			Selector struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			}
		}
	}
	read("disruption.yaml", &disruption)
	labels := deployment.Spec.Template.Metadata.Labels
	for name, selector := range map[string]map[string]string{
		"service.yaml": service.Spec.Selector, "network.yaml": network.Spec.PodSelector.MatchLabels,
		"disruption.yaml": disruption.Spec.Selector.MatchLabels,
	} {
		if !maps.Equal(selector, labels) {
			t.Errorf("%s selects %v; the pods have %v", name, selector, labels)
		}
	}
}

// systemd starts a process again that has crashed, or that its watchdog has ended: a
// program of Go exits then with the status that means bad configuration, for which the
// unit does not try again.
func TestUnitRestartsCrashes(t *testing.T) {
	unit, err := os.ReadFile("../../packaging/systemd/espalier.service")
	if err != nil {
		t.Fatal(err)
	}
	prevent := fmt.Sprintf("\nRestartPreventExitStatus=%d\n", exitUsage)
	if !strings.Contains(string(unit), prevent) || !strings.Contains(string(unit), "\nRestart=always\n") {
		t.Fatalf("the unit has not %q", prevent)
	}
	p := prepare(t, "")
	cmd := p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0")
	for _, m := range regexp.MustCompile(`(?m)^Environment=(.*)$`).FindAllSubmatch(unit, -1) {
		cmd.Env = append(cmd.Env, string(m[1]))
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.ended = make(chan struct{})
	go func() { _ = cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-p.ended })
	p.cmd = cmd
	p.await("the control socket", func() bool { _, err := p.status(); return err == nil })
	p.signal(syscall.SIGABRT)
	<-p.ended
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGABRT {
		t.Errorf("it ended with %v, want %v", cmd.ProcessState, syscall.SIGABRT)
	}
}

// Every metric that the dashboard asks for is one that the program has.
func TestDashboardMetrics(t *testing.T) {
	text, err := os.ReadFile("../../packaging/grafana/espalier.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil || len(dashboard.Panels) == 0 {
		t.Fatal(err, len(dashboard.Panels))
	}
	var code strings.Builder
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		code.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	known := regexp.MustCompile(`"(espalier_[a-z_]+)"`).FindAllStringSubmatch(code.String(), -1)
	name := regexp.MustCompile(`espalier_[a-z_]+`)
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, metric := range name.FindAllString(target.Expr, -1) {
				metric = strings.TrimSuffix(metric, "_bucket")
				if !slices.ContainsFunc(known, func(m []string) bool { return m[1] == metric }) {
					t.Errorf("%s: there is no %s", p.Title, metric)
				}
			}
		}
	}
}
