//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	// More threads than cores, so that a bulk stream of the load never keeps a
	// round trip waiting inside this process.
	runtime.GOMAXPROCS(runtime.NumCPU() + 8)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	cancel()
	os.Exit(code)
}

// options are what the flags say beyond the bench itself.
type options struct {
	peers, scenarios      []string
	targets               []peer
	bins                  map[string]string // built programs by peer
	markdown, json        string
	subject               string
	install, awake, check bool
}

// command runs the bench and returns its exit status: 0 done, 1 a sample failed
// or, with -check, a goal was missed, 2 bad usage.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	b := &bench{proc: "/proc", progress: stderr}
	o, err := parseFlags(b, args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "espalier-bench:", err)
		return 2
	}
	ok, err := compare(ctx, b, o, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "espalier-bench:", err)
		return 1
	}
	if !ok {
		return 1
	}
	return 0
}

func parseFlags(b *bench, args []string, stderr io.Writer) (*options, error) {
	o := &options{bins: map[string]string{}}
	fs := flag.NewFlagSet("espalier-bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, "espalier-bench compares forward proxies side by side on loopback.\n\n")
		fs.PrintDefaults()
	}
	peerList := fs.String("peers", strings.Join(peerNames(false), ","), "proxies to start, separated by commas; none where only targets count")
	scenarioList := fs.String("scenarios", strings.Join(scenarioNames(), ","), "what to measure")
	fs.Func("target", "a running proxy, name=ADDR:PORT,pid=PID[,mode=tcp]; may be given several times", func(s string) error {
		p, err := parseTarget(s)
		o.targets = append(o.targets, p)
		return err
	})
	fs.StringVar(&b.origin, "origin", "127.0.0.1:0", "where the origin listens; a target in mode=tcp must lead there")
	fs.IntVar(&b.rounds, "rounds", 3, "rounds; figures are medians over them")
	fs.DurationVar(&b.load.window, "duration", time.Second, "time measured in each sample of bulk, rtt and http")
	fs.IntVar(&b.load.opens, "count", 4000, "tunnels opened in each sample of open")
	fs.IntVar(&b.load.inspected, "inspected", 400, "intercepted connections in each sample of inspect, after one to each name")
	fs.IntVar(&b.load.concurrency, "concurrency", 16, "clients of open, http and inspect at a time")
	fs.IntVar(&b.load.streams, "streams", 4, "parallel streams of bulk")
	fs.IntVar(&b.load.idle, "idle", 5000, "tunnels of idle; fewer where descriptors do not suffice")
	fs.DurationVar(&b.load.quiet, "quiet", 3*time.Second, "how long idle watches the silence")
	fs.IntVar(&b.load.beside, "beside", 0, "idle tunnels held open beside every other scenario")
	fs.StringVar(&b.user, "user", "", "run every proxy as this user, for example nobody (needs root)")
	fs.IntVar(&b.nofile, "nofile", 20000, "limit of descriptors for each proxy")
	espalier := fs.String("espalier", "", "a built espalier, in place of building this checkout")
	before := fs.String("before", "", "a built espalier of before a change, for the peer before")
	goproxy := fs.String("goproxy", "", "a built goproxy peer, in place of building it")
	fs.StringVar(&o.subject, "subject", "espalier", "whose ratios to the others are shown")
	fs.StringVar(&o.markdown, "markdown", "", "write the tables to this file as markdown")
	fs.StringVar(&o.json, "json", "", "write every sample to this file as JSON")
	fs.BoolVar(&o.awake, "awake", true, "keep the cores from halting, for steadier figures in virtual machines")
	fs.BoolVar(&o.check, "check", false, "exit with 1 where espalier misses a goal")
	fs.BoolVar(&o.install, "install", false, "install missing peers with apt-get")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	for name, value := range map[string]int{"rounds": b.rounds, "count": b.load.opens, "inspected": b.load.inspected, "concurrency": b.load.concurrency, "streams": b.load.streams, "idle": b.load.idle} {
		if value < 1 {
			return nil, fmt.Errorf("-%s: must be at least 1, not %d", name, value)
		}
	}
	if b.load.window <= 0 || b.load.quiet <= 0 || b.load.beside < 0 {
		return nil, errors.New("-duration and -quiet must be positive, -beside not negative")
	}
	if b.nofile < 1000 {
		return nil, fmt.Errorf("-nofile: must be at least 1000, not %d", b.nofile)
	}
	if b.user != "" && os.Geteuid() != 0 {
		return nil, errors.New("-user: only root may run the proxies as somebody else")
	}
	for name, bin := range map[string]string{"espalier": *espalier, "espalier-no-store": *espalier, "before": *before, "goproxy": *goproxy} {
		if bin == "" {
			continue
		}
		abs, err := filepath.Abs(bin) // each peer runs in a directory of its own
		if err != nil {
			return nil, err
		}
		o.bins[name] = abs
	}
	o.peers, o.scenarios = split(*peerList), split(*scenarioList)
	for _, name := range o.scenarios {
		i := slices.Index(scenarioNames(), name)
		if i < 0 {
			return nil, fmt.Errorf("-scenarios: %q is unknown (allowed: %s)", name, strings.Join(scenarioNames(), ", "))
		}
		b.scenarios = append(b.scenarios, scenarios[i])
	}
	for _, name := range o.peers {
		if !slices.Contains(peerNames(true), name) {
			return nil, fmt.Errorf("-peers: unknown peer %q (allowed: %s)", name, strings.Join(peerNames(true), ", "))
		}
		if name == "before" && *before == "" {
			return nil, errors.New("-before: missing, and -peers names before")
		}
	}
	return o, nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func peerNames(optional bool) []string {
	var names []string
	for _, p := range peers {
		if optional || !p.optional {
			names = append(names, p.name)
		}
	}
	return names
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

// compare prepares the peers, runs the bench and writes the reports. It is
// false where a sample failed or a goal was missed that counts.
func compare(ctx context.Context, b *bench, o *options, stdout, stderr io.Writer) (bool, error) {
	var err error
	if b.own, err = raiseFiles(); err != nil {
		return false, err
	}
	b.nofile = min(b.nofile, b.own)
	if b.dir, err = makeDir(); err != nil {
		return false, err
	}
	defer os.RemoveAll(b.dir)
	if b.lab, err = newLab(b.dir); err != nil {
		return false, err
	}

	r := &result{
		Date: time.Now(), Machine: thisMachine(b.proc),
		Terms: terms{
			Rounds: b.rounds, Window: b.load.window.Seconds(), Opens: b.load.opens, Concurrency: b.load.concurrency,
			Streams: b.load.streams, Beside: b.load.beside, User: b.user, Files: b.nofile, Awake: o.awake,
		},
	}
	candidates := o.targets
	for _, p := range peers {
		if slices.Contains(o.peers, p.name) {
			p.bin = o.bins[p.name]
			candidates = append(candidates, p)
		}
	}
	for i := range candidates {
		p := &candidates[i]
		err := p.prepare(ctx, b.dir, o.install)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			if !errors.Is(err, errMissing) {
				return false, err
			}
			fmt.Fprintf(stderr, "skipped: %v\n", err)
			r.Skipped = append(r.Skipped, fmt.Sprintf("skipped: %v", err))
			continue
		}
		if n := b.idleFor(p); n < b.load.idle && slices.Contains(o.scenarios, "idle") {
			fmt.Fprintf(stderr, "%s: %d idle tunnels, more do not fit the limit of descriptors\n", p.name, n)
		}
		b.peers = append(b.peers, p)
		r.Peers = append(r.Peers, peerInfo{Name: p.name, Version: p.is, Note: p.note})
	}
	if len(b.peers) == 0 {
		return false, errors.New("no proxy to measure")
	}

	if r.Terms.Awake {
		stop, err := keepAwake(b.dir, r.Machine.Cores)
		if err != nil {
			return false, fmt.Errorf("-awake: %w", err)
		}
		defer stop()
	}
	all0, stolen0, err := b.proc.ticks()
	if err != nil {
		return false, err
	}
	var runErr error
	r.Samples, runErr = b.run(ctx)
	if all, stolen, err := b.proc.ticks(); err == nil && all > all0 {
		r.Stolen = float64(stolen-stolen0) / float64(all-all0)
	}
	if runErr != nil && len(r.Samples) == 0 {
		return false, runErr
	}
	if !r.has(o.subject) {
		o.subject = b.peers[0].name
	}
	fmt.Fprintln(stdout)
	if err := r.report(stdout, o.subject, false); err != nil {
		return false, err
	}
	if runErr != nil {
		return false, fmt.Errorf("the table above is not complete: %w", runErr)
	}
	if err := writeFiles(r, o); err != nil {
		return false, err
	}
	ok := len(r.errors()) == 0
	if o.check {
		for _, v := range r.judge("espalier") {
			ok = ok && (v.met || v.aim)
		}
	}
	return ok, nil
}

func writeFiles(r *result, o *options) error {
	if o.markdown != "" {
		var b strings.Builder
		if err := r.report(&b, o.subject, true); err != nil {
			return err
		}
		if err := os.WriteFile(o.markdown, []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	if o.json != "" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(o.json, append(b, '\n'), 0o644)
	}
	return nil
}
