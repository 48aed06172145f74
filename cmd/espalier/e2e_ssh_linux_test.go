package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"espalier/policy"
)

// sshConfig is what docs/ssh.md tells administrators to write.
func sshConfig(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/ssh.md")
	if err != nil {
		t.Fatal(err)
	}
	var config string
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "    Host ") || config != "" && strings.HasPrefix(line, "    ") {
			config += line
		} else if config != "" {
			break
		}
	}
	if !strings.Contains(config, "ProxyCommand") {
		t.Fatal("docs/ssh.md has no ProxyCommand")
	}
	return config
}

// sshd starts a real server at addr, port 22, which lets root in by a key, and
// returns the key's file.
func sshd(t *testing.T, dir, addr string) (key string) {
	t.Helper()
	for _, name := range []string{"host", "key"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	config := filepath.Join(dir, "sshd_config")
	text := fmt.Sprintf(`ListenAddress %s
Port 22
HostKey %[2]s/host
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
AuthorizedKeysFile %[2]s/key.pub
Subsystem sftp internal-sftp
`, addr, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("sshd")
	if err != nil {
		t.Fatal(err)
	}
	// It wants a directory below /run, which is the test's own here.
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount -t tmpfs none /run && mkdir /run/sshd && exec "$0" -D -e -f "$1"`, path, config)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("sshd:\n%s", out.String())
		}
	})
	for end := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp", addr+":22")
		if err == nil {
			c.Close()
			return filepath.Join(dir, "key")
		}
		select {
		case <-ended:
			t.Fatal("sshd ended")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// The roster goes to Apple's SFTP server through the proxy by the ProxyCommand of
// docs/ssh.md, also while the proxy asks for a password everywhere else. Other SSH
// hosts are refused, or asked for one if a rule names the port.
func TestSFTPThroughProxy(t *testing.T) {
	for _, program := range []string{"sshd", "ssh-keygen", "sftp", "nc", "unshare"} {
		need(t, program)
	}
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("port 22 needs root")
		}
		t.Skip("port 22 needs root")
	}
	t.Parallel()
	const host = "upload.appleschoolcontent.com"
	dir := t.TempDir()
	addr := ownLoopback(t, 22)
	key := sshd(t, dir, addr)
	p := prepare(t, "")
	users := filepath.Join(dir, "users")
	if err := os.WriteFile(users, []byte("alice:$2a$04$MSb0yvYLC1wUTpFnsGh9hO6kXkLZWyA6WXs/ur8mShTbO5XLhbM06\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.write(fmt.Sprintf(`egress: {allow: [loopback], hosts: {%s: %q, other.example: %[2]q, asked.example: %[2]q, shut.example: %[2]q}}
auth: {htpasswd: %s}
rules:
  - {name: no-other, when: {hosts: [other.example]}, then: deny}
  - {name: ssh, when: {hosts: [asked.example], ports: [22]}, then: tunnel}
`, host, addr, users))
	p.start()

	roster := bytes.Repeat([]byte("student,class\n"), 20000)
	batch := filepath.Join(dir, "batch")
	for name, data := range map[string][]byte{
		"roster.csv": roster, "batch": []byte("put " + dir + "/roster.csv " + dir + "/uploaded.csv\n"),
		"config": []byte(strings.ReplaceAll(sshConfig(t), "proxy.school.example:3128", p.proxy) +
			strings.NewReplacer("Host "+host, "Host *.example", "proxy.school.example:3128", p.proxy).Replace(sshConfig(t))),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sftp := func(host string) (output string, code int) {
		stdout, stderr, code := outputOf(t, exec.Command("sftp", "-F", filepath.Join(dir, "config"), "-b", batch, "-i", key,
			"-o", "UserKnownHostsFile="+dir+"/known", "-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes", "root@"+host))
		return stdout + stderr, code
	}
	if out, code := sftp(host); code != 0 {
		t.Fatalf("sftp: exit status %d: %s", code, out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "uploaded.csv")); err != nil || !bytes.Equal(got, roster) {
		t.Errorf("what arrived is not what was sent: %d bytes, %v", len(got), err)
	}
	if r := p.record(host); r.Service != "business-school" || r.Action != policy.Tunnel || r.Port != 22 || r.Up < int64(len(roster)) || r.Error != "" {
		t.Errorf("record %+v", r)
	}
	for host, status := range map[string]string{"other.example": "403", "asked.example": "407", "shut.example": "403"} {
		if out, code := sftp(host); code == 0 || !strings.Contains(out, `Proxy error: "HTTP/1.1 `+status) {
			t.Errorf("%s: exit status %d: %s", host, code, out)
		}
	}
}
