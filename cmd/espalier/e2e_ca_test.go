package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A CA is made beside a running proxy, taken over by a reload, and served.
func TestCA(t *testing.T) {
	p := launch(t, "")
	fetch := func() (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + p.public + "/ca.crt")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	run := func(code int, args ...string) (stdout, stderr string) {
		t.Helper()
		stdout, stderr, got := p.run(args...)
		if got != code {
			t.Fatalf("%q: exit status %d, want %d\n%s", args, got, code, stderr)
		}
		return stdout, stderr
	}
	if status, _ := fetch(); status != http.StatusNotFound {
		t.Errorf("before there is a CA: %d", status)
	}

	run(0, "ca", "init", "--days", "20")
	run(0, "reload")
	der, _ := run(0, "ca", "export", "--format", "der")
	if status, body := fetch(); status != http.StatusOK || body != der {
		t.Errorf("%d, the root: %t", status, body == der)
	}
	if days := time.Until(time.Unix(int64(p.metric("espalier_ca_expiry_timestamp_seconds")), 0)).Hours() / 24; days < 19 || days > 20 {
		t.Errorf("the metric says %f days", days)
	}
	const warning = "the CA expires in 19 days"
	if st, err := p.status(); err != nil || st.CA == nil || len(st.CA.Warnings) != 1 || !strings.HasPrefix(st.CA.Warnings[0], warning) {
		t.Errorf("status: %+v, %v", st.CA, err)
	}
	if log := p.stderr.String(); !strings.Contains(log, warning) {
		t.Errorf("the log does not warn:\n%s", log)
	}

	// A key that others can read keeps the configuration before in force.
	key := filepath.Join(p.data, "ca", "ca.key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stderr := run(1, "reload"); !strings.Contains(stderr, key+": others can use this key") {
		t.Errorf("reload: %s", stderr)
	}
	if status, body := fetch(); status != http.StatusOK || body != der {
		t.Errorf("after a reload that failed: %d", status)
	}
}
