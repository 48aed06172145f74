package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// denying is a configuration that denies one host. The others refuse to connect.
func denying(host string) string {
	return "egress: {allow: [loopback], hosts: {\"*.example\": 127.0.0.1}}\nrules:\n  - {name: no, when: {hosts: [" + host + "]}, then: deny}\n"
}

// denies reports whether the configuration in force denies host.
func (p *process) denies(host string) bool {
	_, why, c := p.connect(host + ":443")
	c.Close()
	return why == "espalier; error=http_request_denied"
}

func TestReload(t *testing.T) {
	p := launch(t, denying("start.example"))
	if !p.denies("start.example") || p.denies("hup.example") {
		t.Fatal("the first configuration is not in force")
	}
	// A tunnel that was opened before all of this stays.
	at := listen(t, "127.0.0.1:0", echo)
	_, _, open := p.connect(at.String())

	// beside writes a file next to the configuration.
	beside := func(name, config string) string {
		path := filepath.Join(filepath.Dir(p.config), name)
		if err := os.WriteFile(path, []byte(p.whole(config)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("file written", func(t *testing.T) {
		p.write(denying("written.example"))
		p.await("the file's new content", func() bool { return p.denies("written.example") })
	})
	t.Run("file renamed over it", func(t *testing.T) {
		must(os.Rename(beside("new.yaml", denying("renamed.example")), p.config))
		p.await("the new file", func() bool { return p.denies("renamed.example") })
	})
	t.Run("symbolic link swapped as Kubernetes does it", func(t *testing.T) {
		dir := filepath.Dir(p.config)
		for _, version := range []string{"one", "two"} {
			must(os.Mkdir(filepath.Join(dir, version), 0o700))
			must(os.WriteFile(filepath.Join(dir, version, "espalier.yaml"), []byte(p.whole(denying(version+".example"))), 0o600))
		}
		must(os.Symlink("one", filepath.Join(dir, "..data")))
		must(os.Symlink("..data/espalier.yaml", filepath.Join(dir, "link")))
		must(os.Rename(filepath.Join(dir, "link"), p.config))
		p.await("the linked file", func() bool { return p.denies("one.example") })
		must(os.Symlink("two", filepath.Join(dir, "..tmp")))
		must(os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
		p.await("the file behind the other link", func() bool { return p.denies("two.example") })
	})
	t.Run("bad file", func(t *testing.T) {
		must(os.Rename(beside("bad.yaml", "proxy: {idle_timeout: never}\n"), p.config))
		p.await("the failed reload in /metrics", func() bool { return p.metric("espalier_config_last_reload_successful") == 0 })
		if !p.denies("two.example") {
			t.Error("the configuration before is not in force any more")
		}
		where := p.config + ":3:23: proxy.idle_timeout: "
		stdout, stderr, code := p.run("status")
		if code != 0 || !strings.Contains(stdout, "failed; the configuration before it is in force") || !strings.Contains(stdout, where) {
			t.Errorf("status: exit status %d\n%s%s", code, stdout, stderr)
		}
		stdout, stderr, code = p.run("reload")
		if code != 1 || stdout != "" || !strings.Contains(stderr, where) {
			t.Errorf("reload: exit status %d\n%s%s", code, stdout, stderr)
		}
		if log := p.stderr.String(); !strings.Contains(log, where) {
			t.Errorf("log: %s", log)
		}
	})
	t.Run("espalier reload", func(t *testing.T) {
		must(os.Rename(beside("good.yaml", denying("told.example")), p.config))
		if stdout, stderr, code := p.run("reload"); code != 0 || stdout != "the configuration was read again and is in force\n" {
			t.Errorf("reload: exit status %d\n%s%s", code, stdout, stderr)
		}
		if !p.denies("told.example") {
			t.Error("the new configuration is not in force when the command ends")
		}
		if v := p.metric("espalier_config_last_reload_successful"); v != 1 {
			t.Errorf("/metrics says %v", v)
		}
	})
	t.Run("SIGHUP", func(t *testing.T) {
		before, err := p.status()
		must(err)
		p.signal(syscall.SIGHUP)
		p.await("a reload", func() bool {
			st, err := p.status()
			return err == nil && st.Reload.OK && st.Reload.Loaded.After(before.Reload.Loaded)
		})
	})
	if err := pingPong(open, "still here"); err != nil {
		t.Errorf("the tunnel that was open all the time: %v", err)
	}
}
