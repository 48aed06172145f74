package tunnel

import (
	"io"
	"testing"
)

// BenchmarkMessage relays 64 bytes there and back.
func BenchmarkMessage(b *testing.B) {
	s := newStage(b, New(patient))
	client, upstream, _ := s.open("")
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		for _, way := range [...]struct {
			from io.Writer
			to   io.Reader
		}{{client, upstream}, {upstream, client}} {
			if _, err := way.from.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(way.to, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkBulk relays 1 MB at a time.
func BenchmarkBulk(b *testing.B) {
	s := newStage(b, New(patient))
	client, upstream, _ := s.open("")
	const size = 1 << 20
	chunk := make([]byte, size)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		wrote := make(chan error, 1)
		go func() { _, err := upstream.Write(chunk); wrote <- err }()
		if _, err := io.CopyN(io.Discard, client, size); err != nil {
			b.Fatal(err)
		}
		if err := <-wrote; err != nil {
			b.Fatal(err)
		}
	}
}
