package accesslog

import (
	"fmt"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes, written 100MB or 1GiB in configuration.
type ByteSize int64

var byteUnits = []struct {
	suffix string
	size   int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// UnmarshalText parses "100MB", "64KiB", "512B" or a bare number of bytes.
func (b *ByteSize) UnmarshalText(text []byte) error {
	s, unit := string(text), int64(1)
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = strings.TrimSpace(n), u.size
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > (1<<63-1)/unit {
		return fmt.Errorf("%q is no size (allowed: a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB)", text)
	}
	*b = ByteSize(n * unit)
	return nil
}

// String returns the size in the largest unit that divides it.
func (b ByteSize) String() string {
	best := "B"
	size := int64(1)
	for _, u := range byteUnits {
		if b != 0 && int64(b)%u.size == 0 && u.size > size {
			best, size = u.suffix, u.size
		}
	}
	return strconv.FormatInt(int64(b)/size, 10) + best
}

// MarshalText returns String.
func (b ByteSize) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
