package tunnel

import (
	"net/netip"

	"espalier/proxy/traffic"
)

// Sides of a tunnel. The direction that reads from a side has its number: up is
// client to upstream, down the reverse.
const (
	client   = 0
	upstream = 1
	up       = client
	down     = upstream
)

type phase uint8

const (
	free       phase = iota
	reading          // a client whose head has not come
	connecting       // to the upstream
	relaying
)

// A slot is a tunnel, or what may become one. It holds no pointer, so that the
// collector never looks at tens of thousands of them; what needs pointers stands
// in the meta of the same index.
type slot struct {
	fd    [2]int32
	gen   int32 // told in events: an event of a former tenant is known by it
	phase phase
	out   [2]bool // the side is watched for room to write, once it had none
	// watched says that the side is in the epoll set.
	watched [2]bool
	// errno is why nothing can be sent to a side any more, while what it sent
	// before is still relayed.
	errno [2]int32
	dir   [2]direction
	since int64    // when the phase began; ns
	last  int64    // when a byte last moved; ns
	bytes [2]int64 // relayed, by direction
	// connect is how long connecting took; ns.
	connect int64
}

// A direction is one half of a relay.
type direction struct {
	pipe     int32 // in worker.pipes, plus 1; 0 is none
	held     int32 // bytes in the pipe
	chunk    int32 // bytes to splice at once; 0 while messages are small
	run      int32 // bytes spliced since the source was last drained, to minChunk
	readable bool  // the source may have more
	hup      bool  // the source has sent its end, so a short read is not all
	blocked  bool  // the destination has no room
	eof      bool  // the source has ended
	done     bool  // and the destination was told
	noSplice bool  // the kernel does not splice these sockets
	queued   bool  // in worker.ready
	muted    bool  // the source is read anyway, so its events are switched off
}

// meta is what a slot has of pointers.
type meta struct {
	service *traffic.Service
	owner   Owner
	// upstream is where the worker connected to.
	upstream netip.AddrPort
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
	*s = slot{gen: s.gen + 1}
	*m = meta{}
	l.unused = append(l.unused, i)
}
