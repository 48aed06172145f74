//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

const (
	// patternPeriod is a prime, so that a stream shifted by any power of two
	// does not match itself.
	patternPeriod = 1<<20 - 3
	// chunk is the largest piece that pattern hands out.
	chunk = 256 << 10
)

// patternTable holds one period and a chunk more, so that every piece is one
// slice and neither sending nor checking copies.
var patternTable = func() []byte {
	b := make([]byte, patternPeriod+chunk)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range patternPeriod {
		b[i] = byte(rng.Uint32())
	}
	copy(b[patternPeriod:], b)
	return b
}()

// pattern returns n ≤ chunk bytes at position pos of the stream called seed.
// The bytes are shared and must not be changed.
func pattern(seed uint32, pos int64, n int) []byte {
	off := (uint64(seed)*2654435761 + uint64(pos)) % patternPeriod
	return patternTable[off : off+uint64(n)]
}

// checkPattern compares what was received at pos of the stream with what was
// sent; b may be of any length.
func checkPattern(seed uint32, pos int64, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), chunk)
		if want := pattern(seed, pos, n); !bytes.Equal(b[:n], want) {
			for i := range want {
				if b[i] != want[i] {
					return fmt.Errorf("corrupt data: byte %d is 0x%02x, 0x%02x was sent", pos+int64(i), b[i], want[i])
				}
			}
		}
		b, pos = b[n:], pos+int64(n)
	}
	return nil
}
