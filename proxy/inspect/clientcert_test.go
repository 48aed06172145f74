package inspect

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"testing"
	"time"
)

// Origins choose how many names they send, and clients how many hosts they meet.
func TestAskedIsBounded(t *testing.T) {
	name := func(size int) []byte { return bytes.Repeat([]byte{1}, size) }
	list := func(n, size int) (names [][]byte) {
		for range n {
			names = append(names, name(size))
		}
		return names
	}
	for _, tt := range []struct {
		name        string
		authorities [][]byte
		kept        int
	}{
		{"none", nil, 0},
		{"some", list(150, 100), 150},
		{"large names", list(3, 30_000), 0},
		{"empty names", list(30_000, 0), 0},
		{"many small names", list(2_000, 3), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, _ := exceptions(time.Hour)
			e.Asked("asks.example", tt.authorities)
			cfg := e.Asking("asks.example", &tls.Config{})
			if cfg == nil || cfg.ClientAuth != tls.RequestClientCert {
				t.Fatal("the client is not asked")
			}
			if got := len(e.asking.hosts["asks.example"].authorities); got != tt.kept {
				t.Errorf("keeps %d names, want %d", got, tt.kept)
			}
		})
	}
	t.Run("many hosts", func(t *testing.T) {
		e, _ := exceptions(time.Hour)
		for i := range 2 * maxAsking {
			e.Asked(fmt.Sprintf("h%d.example", i), list(500, 100))
		}
		for range 3 {
			e.Asked("last.example", list(500, 100))
		}
		total := 0
		for _, x := range e.asking.hosts {
			for _, name := range x.authorities {
				total += len(name)
			}
		}
		if total > maxAuthoritiesInTotal || e.asking.size > maxAuthoritiesInTotal {
			t.Errorf("keeps %d bytes, counted %d", total, e.asking.size)
		}
		if e.Asking("last.example", &tls.Config{}) == nil {
			t.Error("the last host is forgotten")
		}
		for i := range 2 * maxAsking {
			e.Asked(fmt.Sprintf("n%d.example", i), nil)
		}
		if n := len(e.asking.hosts); n != maxAsking || e.asking.size < 0 {
			t.Errorf("keeps %d hosts, counted %d bytes", n, e.asking.size)
		}
	})
}
