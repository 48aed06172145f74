package doctor

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"espalier/proxy/refusal"
)

// ntp asks for the time (RFC 4330), at each address of the host in turn, until
// one answers.
func (p *probe) ntp(ctx context.Context) Finding {
	addrs, err := p.d.Egress.Lookup(ctx, p.target)
	if err != nil {
		return failed(StepName, err)
	}
	deadline, _ := ctx.Deadline() // which run sets
	var found Finding
	for i, a := range addrs {
		at := netip.AddrPortFrom(a, cmp.Or(p.d.ntpPort, p.target.Port))
		part, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addrs)-i))
		offset, err := askTime(part, at)
		cancel()
		if err == nil {
			found = good(clockNote(offset))
			found.Address = at.String()
			return found
		}
		if i == 0 {
			found = failed(StepNTP, err)
			found.Address = at.String()
		}
	}
	return found
}

// clockNote says by how much this machine's clock is wrong, if it is.
func clockNote(behind time.Duration) string {
	behind = behind.Round(time.Second)
	switch {
	case behind > maxOffset:
		return fmt.Sprintf("this machine's clock is %s behind", behind)
	case behind < -maxOffset:
		return fmt.Sprintf("this machine's clock is %s ahead", -behind)
	}
	return ""
}

// maxOffset is what a clock may be wrong by without a word.
const maxOffset = 10 * time.Second

// askAgain is how long an answer is waited for before the question is repeated:
// a datagram may be lost.
const askAgain = time.Second

var errNotNTP = errors.New("the answer is not of NTP")

// askTime returns how far this machine's clock is behind that of a server.
func askTime(ctx context.Context, at netip.AddrPort) (time.Duration, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", at.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	question := make([]byte, 48)
	question[0] = 4<<3 | 3          // version 4, a client
	_, _ = rand.Read(question[40:]) // in place of the own time, so that nobody else can answer
	answer := make([]byte, len(question)+1)
	for ctx.Err() == nil {
		_ = conn.SetDeadline(time.Now().Add(askAgain))
		_, err := conn.Write(question)
		n := 0
		if err == nil {
			n, err = conn.Read(answer)
		}
		if refusal.IsTimeout(err) || ctx.Err() != nil {
			continue
		}
		if err != nil {
			return 0, err
		}
		if n < len(question) || answer[0]&7 != 4 || !bytes.Equal(answer[24:32], question[40:]) {
			return 0, errNotNTP
		}
		if answer[1] == 0 { // the stratum
			return 0, fmt.Errorf("the server refuses with %q", clean(string(answer[12:16])))
		}
		epoch := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)
		return time.Until(epoch.Add(time.Duration(binary.BigEndian.Uint32(answer[40:])) * time.Second)), nil
	}
	return 0, context.Cause(ctx)
}
