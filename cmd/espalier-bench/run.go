//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A bench is one comparison.
type bench struct {
	peers     []*peer // prepared
	scenarios []scenario
	rounds    int
	load      load
	user      string // whom the peers run as; empty: as the bench, or their own
	nofile    int    // descriptors a peer may have
	own       int    // descriptors the bench may have
	origin    string // listen address of the origin
	dir       string // for configurations, logs and built programs
	lab       *lab
	proc      procfs
	progress  io.Writer
}

// sampleLimit bounds one sample, so that a proxy that hangs ends it.
const sampleLimit = 2 * time.Minute

// run takes every sample; failed ones are among them. Its error is ctx's.
func (b *bench) run(ctx context.Context) ([]sample, error) {
	var out []sample
	for round := range b.rounds {
		for _, sc := range b.scenarios {
			order := rand.Perm(len(b.peers))
			for _, i := range order {
				if p := b.peers[i]; p.addr == "" && (sc.intercepts && p.inspect == nil || !sc.intercepts && p.config == nil) {
					continue
				}
				s := sample{Round: round + 1, Scenario: sc.name, Peer: b.peers[i].name}
				v, err := b.sample(ctx, b.peers[i], sc)
				if ctx.Err() != nil {
					return out, ctx.Err()
				}
				if err != nil {
					s.Err = err.Error()
				} else {
					s.Values = v
				}
				out = append(out, s)
				b.tell(s)
			}
		}
	}
	return out, nil
}

func (b *bench) tell(s sample) {
	line := "failed: " + s.Err
	if s.Err == "" {
		var parts []string
		for _, f := range figures {
			if x, ok := s.Values[f.key]; ok {
				parts = append(parts, fmt.Sprintf("%s %.*f", f.key, f.digits, x))
			}
		}
		line = strings.Join(parts, ", ")
	}
	fmt.Fprintf(b.progress, "round %d of %d, %s, %s: %s\n", s.Round, b.rounds, s.Scenario, s.Peer, line)
}

// sample runs one scenario with a fresh process of one peer.
func (b *bench) sample(ctx context.Context, p *peer, sc scenario) (v values, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, sampleLimit, fmt.Errorf("did not end within %s", sampleLimit))
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	dir, err := os.MkdirTemp(b.dir, p.name+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)

	o, err := startOrigin(b.origin, b.lab.cert)
	if err != nil {
		return nil, err
	}
	// What the origin found wrong explains the failure that the client saw.
	defer func() { err = errors.Join(o.Close(), err) }()

	w := where{dir: dir, origin: o.addr, nofile: b.nofile, lab: b.lab}
	addr, pid, stop, err := p.start(ctx, w, sc.intercepts, b.user)
	if err != nil {
		return nil, err
	}
	defer stop()

	bd := &bed{addr: addr, direct: p.direct, pid: pid, proc: b.proc, origin: o, load: b.load}
	bd.load.idle = b.idleFor(p)
	if sc.name != "idle" && !sc.intercepts && b.load.beside > 0 {
		held, err := bd.openIdle(ctx, b.load.beside)
		defer closeAll(held)
		if err != nil {
			return nil, fmt.Errorf("idle tunnels beside: %w", err)
		}
	}
	v, err = sc.run(ctx, bd)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return v, err
}

// idleFor is how many idle tunnels fit: two descriptors each here, and what the
// peer needs there.
func (b *bench) idleFor(p *peer) int {
	const reserve = 250
	return min(b.load.idle, (b.own-reserve)/2, (b.nofile-reserve)/p.fds)
}

// makeDir makes the bench's directory; a peer that runs as another user must
// reach its programs.
func makeDir() (string, error) {
	dir, err := os.MkdirTemp("", "espalier-bench-")
	if err != nil {
		return "", err
	}
	return filepath.Clean(dir), os.Chmod(dir, 0o755)
}
