package tunnel

import (
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel/pipes"
)

// A phase is what a slot is. A client that has not asked at once is reading. It leaves
// the slot when it asks; one that the Gate routes is connecting in a slot, and relaying
// once an address is reached. A slot is free again when its client is closed or is the
// Gate's.
type phase uint8

const (
	free phase = iota
	reading
	connecting
	relaying
)

// A slot is a tunnel, or what may become one. It holds no pointer, so that the
// collector never looks at tens of thousands of them; what needs pointers stands
// in the meta of the same index.
type slot struct {
	fd      [2]int32
	gen     int32     // told in events: an event of a former tenant is known by it
	watched [2]uint32 // what the epoll set has for a side; 0: it is not in the set
	phase   phase
	stirred bool // in worker.stirred
	unkept  bool // keepAlive is not set on the upstream yet
	dir     [2]direction
	since   int64    // when the phase began, or a byte last moved; ns
	bytes   [2]int64 // relayed, by direction
}

// A direction is one half of a relay: from a side of the slot to the other.
type direction struct {
	state state
	pipe  pipes.Pipe
	held  int32 // bytes in the pipe
	chunk int32 // bytes to splice at once; 0 while messages are small, unspliced if the kernel cannot
	run   int32 // bytes spliced since the source was last drained, to minChunk
	fault int32 // the errno with which the destination failed, while the source still relays its last words
}

const unspliced = -1 // in direction.chunk

// A state is that of a direction. Between two events it is one of waiting, full, queued,
// opening, ended and refused; while it is pumped it is flowing or draining:
//
//	waiting   the source has no more. Bytes: flowing. Bytes and its end, or the last words
//	          of a side that has failed: draining.
//	flowing   the source has bytes, and less than was asked for is all. All read: waiting.
//	draining  the source is read until it has no more (waiting) or ends (ended).
//	full      the destination has no room. Room: draining.
//	queued    the turn's budget is spent. The next turn: draining.
//	opening   what the client says first is held. Judged: waiting or draining. Of up alone.
//	ended     the source has ended in order, and the destination was told. Final.
//	refused   the destination takes nothing more, and the source is not read. Final.
//
// From flowing and draining a direction gets full, queued or refused as well; one that
// was not drained is draining when it goes on, since events may have come meanwhile.
type state uint8

const (
	waiting state = iota
	flowing
	draining
	full
	queued
	opening
	ended
	refused
)

// over reports whether the direction has carried its last byte.
func (x *direction) over() bool { return x.state >= ended }

// meta is what a slot has of pointers.
type meta struct {
	service *traffic.Service
	owner   Owner
	// left are bytes that were read and have no room in the destination.
	left    [2][]byte
	pending *pending // until it relays
}

const chunkLen = 256

// slots is a list of slots that grows and never moves.
type slots struct {
	chunks []*[chunkLen]slot
	metas  []*[chunkLen]meta
	unused []uint32
}

func (l *slots) at(i uint32) (*slot, *meta) {
	return &l.chunks[i/chunkLen][i%chunkLen], &l.metas[i/chunkLen][i%chunkLen]
}

// take returns the index of a cleared slot.
func (l *slots) take() uint32 {
	if len(l.unused) == 0 {
		first := uint32(len(l.chunks)) * chunkLen
		l.chunks = append(l.chunks, new([chunkLen]slot))
		l.metas = append(l.metas, new([chunkLen]meta))
		for i := uint32(chunkLen); i > 0; i-- {
			l.unused = append(l.unused, first+i-1)
		}
	}
	i := l.unused[len(l.unused)-1]
	l.unused = l.unused[:len(l.unused)-1]
	return i
}

// put gives a slot back.
func (l *slots) put(i uint32) {
	s, m := l.at(i)
	*s = slot{gen: s.gen + 1, stirred: s.stirred}
	*m = meta{}
	l.unused = append(l.unused, i)
}
