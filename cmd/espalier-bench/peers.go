//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// A peer is a proxy to compare.
type peer struct {
	name   string
	note   string // how it is run, for the report
	direct bool   // plain TCP: no CONNECT
	fds    int    // descriptors it needs for an idle tunnel
	user   string // whom it runs as where the bench is root and no -user is given
	// optional peers are started only if -peers names them.
	optional bool

	// pkg is the Debian package of a peer that is installed, with a program of
	// that name or program, source the Go package of one that is built. A running
	// target has neither.
	pkg     string
	program string
	source  string
	// config writes what the peer needs below w.dir and returns its arguments; nil
	// where it is there for interception only.
	config func(w where) ([]string, error)
	// inspect is config for interception of TLS; nil where it cannot.
	inspect func(w where) ([]string, error)
	// version prints the version of an installed peer on its first line.
	version []string

	bin string // set by prepare
	is  string // the version, set by prepare

	addr string // of a running target
	pid  int
}

// where is what a peer is told about its surroundings.
type where struct {
	dir    string
	listen string
	port   string // of listen
	origin string
	nofile int
	spare  []string // two more free addresses
	name   string   // letters and digits, of this process alone
	bin    string   // of the peer
	lab    *lab
	more   string // configuration of espalier besides that of all
}

var peers = []peer{
	{
		name: "espalier", fds: 2, source: "./cmd/espalier",
		note:   "as shipped: policy, access log (JSON), the store that makes it searchable, and counters",
		config: espalierConfig, inspect: espalierInspect,
	},
	{
		name: "espalier-no-store", fds: 2, source: "./cmd/espalier", optional: true,
		note: "the same without the store, which the others do not have",
		config: func(w where) ([]string, error) {
			w.more = "log: {store: {path: \"\"}}\n"
			return espalierConfig(w)
		},
	},
	{
		name: "before", fds: 2, source: "./cmd/espalier", optional: true,
		note:   "the espalier of -before, as shipped",
		config: espalierConfig, inspect: espalierInspect,
	},
	{
		name: "haproxy", fds: 2, pkg: "haproxy", direct: true, version: []string{"-v"},
		note:   "plain TCP to one backend, no CONNECT, no log: the reference",
		config: func(w where) ([]string, error) { return haproxyConfig(w, "") },
	},
	{
		name: "haproxy-splice", fds: 2, pkg: "haproxy", direct: true, version: []string{"-v"},
		note:   "the same with option splice-auto",
		config: func(w where) ([]string, error) { return haproxyConfig(w, "    option splice-auto\n") },
	},
	{
		name: "squid", fds: 2, pkg: "squid-openssl", program: "squid", user: "proxy", version: []string{"-v"},
		note:   "one worker, access log on, no cache; interception with a CA of RSA 2048, as its documentation has it",
		config: squidConfig, inspect: func(w where) ([]string, error) { return squidInspect(w, w.lab.proxy) },
	},
	{
		name: "squid-4096", fds: 2, pkg: "squid-openssl", program: "squid", user: "proxy", version: []string{"-v"},
		note:    "the same with a CA of RSA 4096, for interception alone: its key is that of every certificate",
		inspect: func(w where) ([]string, error) { return squidInspect(w, w.lab.proxy4096) },
	},
	{
		name: "tinyproxy", fds: 2, pkg: "tinyproxy", version: []string{"-v"},
		note:   "log level Connect; it closes after every plain HTTP request",
		config: tinyproxyConfig,
	},
	{
		name: "goproxy", fds: 6, source: "./cmd/espalier-bench/goproxy",
		note:    "as shipped, served by net/http, no log",
		config:  func(w where) ([]string, error) { return []string{w.listen}, nil },
		inspect: func(w where) ([]string, error) { return []string{w.listen, labDomain, w.lab.origin}, nil },
	},
}

func espalierConfig(w where) ([]string, error) {
	file, err := w.write("espalier.yaml", fmt.Sprintf(`data: %q
%sproxy:
  listen: [%q]
  clients: [loopback]
  max_tunnels_per_client: 1000000
egress:
  allow: ["127.0.0.0/8"]
web:
  public: [%q]
  admin: [%q]
`, filepath.Join(w.dir, "data"), w.more, w.listen, w.spare[0], w.spare[1]))
	return []string{"run", "-c", file}, err
}

// espalierInspect intercepts everything, by a CA of the directory's own.
func espalierInspect(w where) ([]string, error) {
	args, err := espalierConfig(w)
	if err != nil {
		return nil, err
	}
	file := args[len(args)-1]
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	more := fmt.Sprintf("  hosts: {\"*.%s\": 127.0.0.1}\ninspect: {mode: all, roots: [%q]}\nweb:", labDomain, w.lab.origin)
	if _, err := w.write("espalier.yaml", strings.Replace(string(text), "web:", more, 1)); err != nil {
		return nil, err
	}
	if out, err := exec.Command(w.bin, "ca", "init", "-c", file).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("espalier ca init: %w\n%s", err, out)
	}
	return args, nil
}

func haproxyConfig(w where, option string) ([]string, error) {
	// Two descriptors a connection, two a pipe, and a reserve.
	file, err := w.write("haproxy.cfg", fmt.Sprintf(`global
    maxconn %d
    maxpipes 100
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
%slisten bench
    bind %s
    server origin %s
`, (w.nofile-600)/2, option, w.listen, w.origin))
	return []string{"-db", "-f", file}, err
}

func squidConfig(w where) ([]string, error) { return squidWith(w, w.listen, "") }

// squidInspect bumps everything with a CA, and caches of certificates in memory
// and on disk, as Squid's documentation does it.
func squidInspect(w where, ca string) ([]string, error) {
	const helper = "/usr/lib/squid/security_file_certgen"
	certs := filepath.Join(w.dir, "certs")
	if out, err := exec.Command(helper, "-c", "-s", certs, "-M", "16MB").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", helper, err, out)
	}
	return squidWith(w, fmt.Sprintf("%s ssl-bump tls-cert=%s generate-host-certificates=on dynamic_cert_mem_cache_size=16MB", w.listen, ca), fmt.Sprintf(`sslcrtd_program %s -s %s -M 16MB
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
tls_outgoing_options cafile=%s
hosts_file %s
acl SSL_ports port 1-65535
`, helper, certs, w.lab.origin, w.lab.hosts))
}

func squidWith(w where, listen, more string) ([]string, error) {
	file, err := w.write("squid.conf", fmt.Sprintf(`http_port %[1]s
%[5]sacl bench src 127.0.0.0/8
http_access allow bench
cache deny all
access_log daemon:%[2]s/access.log squid
cache_log %[2]s/%[4]s
coredump_dir %[2]s
pid_filename none
pinger_enable off
visible_hostname bench
max_filedescriptors %[3]d
`, listen, w.dir, w.nofile, outputLog, more))
	return []string{"-N", "-n", w.name, "-f", file}, err
}

func tinyproxyConfig(w where) ([]string, error) {
	file, err := w.write("tinyproxy.conf", fmt.Sprintf(`Listen 127.0.0.1
Port %s
Timeout 3600
MaxClients %d
LogFile "%s/tinyproxy.log"
LogLevel Connect
Allow 127.0.0.0/8
`, w.port, w.nofile/2, w.dir))
	return []string{"-d", "-c", file}, err
}

func (w where) write(name, text string) (string, error) {
	file := filepath.Join(w.dir, name)
	return file, os.WriteFile(file, []byte(text), 0o644)
}

// errMissing says that a peer is not here and how to get it.
var errMissing = errors.New("not found")

// prepare finds or builds the peer's program and learns its version. Where it
// is not installed the error is errMissing, unless install is set.
func (p *peer) prepare(ctx context.Context, dir string, install bool) error {
	if p.addr != "" {
		return nil
	}
	if p.source != "" {
		if p.bin == "" {
			bin := filepath.Join(dir, p.name)
			cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=auto", "-o", bin, p.source)
			root, err := moduleRoot(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: go build %s: %w\n%s", p.name, p.source, err, out)
			}
			p.bin = bin
		}
		p.is = builtVersion(p.bin, p.name)
		return nil
	}
	program := cmp.Or(p.program, p.pkg)
	bin, err := lookProgram(program)
	if err != nil && install {
		cmd := exec.CommandContext(ctx, "apt-get", "install", "-y", "--no-install-recommends", p.pkg)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get install %s: %w\n%s", p.pkg, err, out)
		}
		bin, err = lookProgram(program)
	}
	if err != nil {
		return fmt.Errorf("%s %w: apt-get install %s", p.name, errMissing, p.pkg)
	}
	p.bin = bin
	out, _ := exec.CommandContext(ctx, bin, p.version...).Output()
	line, _, _ := bytes.Cut(out, []byte("\n"))
	p.is = versionIn(string(line))
	return nil
}

// lookProgram finds a program also where ordinary users do not look.
func lookProgram(name string) (string, error) {
	if bin, err := exec.LookPath(name); err == nil {
		return bin, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

// versionIn is the first word of a line that begins with a digit.
func versionIn(line string) string {
	for _, w := range strings.Fields(line) {
		if w[0] >= '0' && w[0] <= '9' {
			return w
		}
	}
	return "unknown"
}

// builtVersion reads the version out of a Go program: of the module called name
// where it is a dependency, else of the checkout.
func builtVersion(bin, name string) string {
	info, err := buildinfo.ReadFile(bin)
	if err != nil {
		return "unknown"
	}
	for _, d := range info.Deps {
		if strings.HasSuffix(d.Path, "/"+name) {
			return strings.TrimPrefix(d.Version, "v")
		}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(len(s.Value), 12)]
		}
	}
	return strings.Trim(info.Main.Version, "()")
}

// moduleRoot is the checkout that the bench runs in.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if b, err := os.ReadFile(mod); err != nil || !bytes.HasPrefix(b, []byte("module espalier\n")) {
		return "", errors.New("run the bench inside Espalier's checkout, or name a built program")
	}
	return filepath.Dir(mod), nil
}

// start starts the peer in front of the origin that w names, intercepting or not,
// and returns where it listens, its pid and how to stop it.
func (p *peer) start(ctx context.Context, w where, intercept bool, as string) (addr string, pid int, stop func(), err error) {
	if p.addr != "" {
		return p.addr, p.pid, func() {}, nil
	}
	free, err := freeAddrs(3)
	if err != nil {
		return "", 0, nil, err
	}
	w.listen, w.spare, w.bin = free[0], free[1:], p.bin
	w.name = strings.ReplaceAll(filepath.Base(w.dir), "-", "")
	_, w.port, _ = net.SplitHostPort(w.listen)
	config := p.config
	if intercept {
		config = p.inspect
	}
	args, err := config(w)
	if err != nil {
		return "", 0, nil, err
	}
	if as == "" {
		as = p.user
	}
	proc, err := launch(p.name, w.dir, as, w.nofile, append([]string{p.bin}, args...)...)
	if err != nil {
		return "", 0, nil, err
	}
	stop = func() {
		proc.stop()
		// Squid names its shared memory after its service, and does not come to
		// remove it when it is killed.
		left, _ := filepath.Glob("/dev/shm/" + w.name + "-*")
		for _, file := range left {
			os.Remove(file)
		}
	}
	if err := proc.ready(ctx, w.listen); err != nil {
		stop()
		return "", 0, nil, err
	}
	return w.listen, proc.pid, stop, nil
}

// parseTarget reads a running proxy: name=ADDR,pid=PID[,mode=tcp].
func parseTarget(s string) (peer, error) {
	name, rest, ok := strings.Cut(s, "=")
	addr, rest, _ := strings.Cut(rest, ",")
	p := peer{name: name, addr: addr, fds: 2, note: "running target", is: "unknown"}
	if _, _, err := net.SplitHostPort(addr); !ok || name == "" || err != nil {
		return peer{}, fmt.Errorf("%q is no target (allowed: name=ADDR:PORT,pid=PID[,mode=tcp])", s)
	}
	for _, o := range strings.Split(rest, ",") {
		key, value, _ := strings.Cut(o, "=")
		switch {
		case key == "pid":
			pid, err := strconv.Atoi(value)
			if err != nil || pid <= 0 {
				return peer{}, fmt.Errorf("target %s: %q is no pid", name, value)
			}
			p.pid = pid
		case o == "mode=tcp":
			p.direct = true
		case o == "mode=proxy", o == "":
		default:
			return peer{}, fmt.Errorf("target %s: %q is unknown (allowed: pid=PID, mode=proxy, mode=tcp)", name, o)
		}
	}
	if p.pid == 0 {
		return peer{}, fmt.Errorf("target %s: pid is missing: the cost is read from its process", name)
	}
	return p, nil
}
