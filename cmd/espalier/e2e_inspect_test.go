package main

import (
	"path/filepath"
)

// initCA makes a CA in the data directory of a process that does not run yet, and
// returns the file of its root.
func (p *process) initCA() string {
	p.t.Helper()
	if _, stderr, code := p.run("ca", "init"); code != 0 {
		p.t.Fatalf("espalier ca init: exit status %d\n%s", code, stderr)
	}
	return filepath.Join(p.data, "ca", "ca.crt")
}
