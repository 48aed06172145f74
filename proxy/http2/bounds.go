package http2

import (
	"time"

	"espalier/proxy/head"
)

// Bounds on what a client can make the proxy hold or do. A client that breaks one
// gets GOAWAY with ENHANCE_YOUR_CALM, unless the bound says otherwise.
const (
	// maxHead bounds a header list as RFC 9113, 6.5.2 counts it, and head.MaxFields
	// its fields: compressed, a few bytes may stand for thousands (an HPACK bomb).
	// A larger one is answered with 431.
	maxHead = head.MaxBytes
	// maxBlock bounds the compressed list, and maxFrames its frames: the proxy must
	// read a list to its end even when it refuses it (CONTINUATION flood,
	// CVE-2024-27316). A list of maxHead fits in, with Huffman codes that are longer
	// than their text too.
	maxBlock  = 2 * maxHead
	maxFrames = 64
	// headTimeout bounds how long a client may take over a header list in several
	// frames, or over the connection preface. All streams wait meanwhile.
	headTimeout = time.Minute
	// maxSettings bounds a SETTINGS frame. There are fewer than 20 settings.
	maxSettings = 64
	// maxPending bounds the frames that wait for a client that does not read: floods
	// of PING, SETTINGS and invalid requests (CVE-2019-9512, CVE-2019-9515).
	maxPending = 512 << 10
)

// A budget bounds frames that cost the client nothing and the proxy something:
// RST_STREAM (rapid reset, CVE-2023-44487), malformed requests and those above
// MaxStreams, PING, SETTINGS, PRIORITY and unknown frames, empty DATA,
// WINDOW_UPDATE, frames for closed streams. Time refills it, and so do DATA that
// the proxy sends and streams that end in order: honest clients send such frames
// in proportion to these.
type budget struct {
	left int
	at   time.Time // of the last refill
}

const (
	budgetFull      = 5000 // for 1000 streams that are begun, or cancelled, at once
	budgetPerSecond = 100
	budgetPerData   = 3 // WINDOW_UPDATE for stream and connection, PING to measure
	budgetPerKiB    = 1 // of DATA: clients give windows back by 4 KiB, and less
	budgetPerStream = 4 // PRIORITY, WINDOW_UPDATE, and some to spare
)

func (b *budget) fill(n int) { b.left = min(b.left+n, budgetFull) }

// spend takes n and reports whether there was enough.
func (b *budget) spend(n int) bool {
	if b.left < n {
		now := time.Now()
		// Whole units only, so that many calls in a moment do not lose the time.
		if units := int(min(now.Sub(b.at), time.Minute) / (time.Second / budgetPerSecond)); units > 0 {
			b.fill(units)
			b.at = now
		}
	}
	b.left -= n
	return b.left >= 0
}
