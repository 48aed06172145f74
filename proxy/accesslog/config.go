package accesslog

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Config is the configuration of the access log, `log.access`.
type Config struct {
	// File is the log's path, relative to the data directory; "-" is standard
	// output, empty writes none.
	File string `koanf:"file"`
	// Format is json or squid (Squid's native line).
	Format string `koanf:"format"`
	// Rotate is the size at which the file is rotated; 0 means at no size.
	// Rotated files are compressed.
	Rotate ByteSize `koanf:"rotate"`
	// Keep is how long rotated files are kept, in whole days, rounded up; 0
	// means for ever. Where it is set the file is rotated every day (UTC) as
	// well, so that no record outlives it by more than two days.
	Keep time.Duration `koanf:"keep"`
	// Anonymize says how far records hide who the client was.
	Anonymize Anonymize `koanf:"anonymize"`
	// Rekey is how long a key of pseudonyms is used; 0 means until its file is
	// removed.
	Rekey time.Duration `koanf:"rekey"`
}

// within is a path as it is relative to the data directory.
func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// Validate checks the values; it does not touch the file.
func (c Config) Validate() error {
	var errs []error
	if c.Format != "json" && c.Format != "squid" {
		errs = append(errs, fmt.Errorf("format: %q is unknown (allowed: json, squid)", c.Format))
	}
	if c.Rotate != 0 && c.Rotate < 1e6 {
		errs = append(errs, fmt.Errorf("rotate: %s is too small (allowed: 0 for never, or 1MB and more)", c.Rotate))
	}
	if c.Keep < 0 {
		errs = append(errs, errors.New("keep: must not be negative"))
	}
	switch {
	case c.Rekey < 0:
		errs = append(errs, errors.New("rekey: must not be negative"))
	case c.Rekey > 0 && c.Anonymize != Pseudonym:
		errs = append(errs, errors.New("rekey: is for anonymize: pseudonym only"))
	}
	return errors.Join(errs...)
}

// StoreConfig is the configuration of the searchable store, `log.store`.
type StoreConfig struct {
	// Path is the store's file, relative to the data directory; empty means no
	// store.
	Path string `koanf:"path"`
	// Keep is how long records are kept; 0 means for ever.
	Keep time.Duration `koanf:"keep"`
	// MaxSize bounds the store: the oldest records are removed where it grows
	// beyond; 0 means no bound.
	MaxSize ByteSize `koanf:"max_size"`
}

// Validate checks the values.
func (c StoreConfig) Validate() error {
	var errs []error
	if c.Keep < 0 {
		errs = append(errs, errors.New("keep: must not be negative"))
	}
	if c.MaxSize != 0 && c.MaxSize < 10e6 {
		errs = append(errs, fmt.Errorf("max_size: %s is too small (allowed: 0 for no bound, or 10MB and more)", c.MaxSize))
	}
	return errors.Join(errs...)
}

// ByteSize is a number of bytes, written 100MB or 1GiB in configuration.
type ByteSize int64

// byteUnits begin with the largest.
var byteUnits = []struct {
	suffix string
	size   int64
}{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"B", 1},
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
	for _, u := range byteUnits {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.suffix
		}
	}
	return "0B"
}

// MarshalText returns String.
func (b ByteSize) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
