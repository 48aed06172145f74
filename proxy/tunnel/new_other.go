//go:build !linux

package tunnel

// New returns the best Engine for this platform.
func New(cfg Config) Engine { return newRelay(cfg) }
