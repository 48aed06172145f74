package main

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What a test finds in its environment that runs in a namespace: its own name, and
// the program that binary has built.
const (
	namespaceVar = "ESPALIER_TEST_NAMESPACE"
	binaryVar    = "ESPALIER_TEST_BINARY"
)

// inNamespace reports whether the test runs in a network namespace of its own, in
// which the machine has addrs. Elsewhere it runs the test again in such a namespace,
// and passes on the result. It needs root. Its processes are in a namespace too, so
// that none outlives the test.
func inNamespace(t *testing.T, addrs ...string) bool {
	t.Helper()
	if os.Getenv(namespaceVar) == t.Name() {
		return true
	}
	need(t, "ip")
	need(t, "unshare")
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	script := "set -e; ip link set lo up\n"
	for _, a := range addrs {
		addr := netip.MustParseAddr(a)
		script += "ip address add " + netip.PrefixFrom(addr, addr.BitLen()).String() + " dev lo\n"
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script+`exec "$0" "$@"`,
		os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), namespaceVar+"="+t.Name(), binaryVar+"="+path)
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("in the namespace: %v\n%s", err, out)
	case strings.Contains(string(out), "\n--- SKIP: "+t.Name()):
		t.Skipf("in the namespace:\n%s", out)
	case !strings.Contains(string(out), "\n--- PASS: "+t.Name()):
		t.Fatalf("the test did not run in the namespace:\n%s", out)
	}
	return false
}
