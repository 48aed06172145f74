package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ntp asks for the time (RFC 4330), at each address of the host in turn, until
// one answers.
func (p *probe) ntp(ctx context.Context) Finding {
	addrs, err := p.d.Egress.Lookup(ctx, p.target)
	if err != nil {
		return failed(StepName, err)
	}
	port := p.target.Port
	if p.d.ntpPort != 0 {
		port = p.d.ntpPort
	}
	var found Finding
	for i, a := range addrs {
		part, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok {
			part, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addrs)-i))
		}
		offset, err := askTime(part, netip.AddrPortFrom(a, port))
		cancel()
		if err == nil {
			found = good("")
			if offset = offset.Round(time.Second); offset.Abs() > maxOffset {
				found.Note = fmt.Sprintf("this machine's clock is %s ahead", -offset)
				if offset > 0 {
					found.Note = fmt.Sprintf("this machine's clock is %s behind", offset)
				}
			}
		} else if found.State == "" {
			found = failed(StepNTP, err)
		}
		if err == nil || found.Address == "" {
			found.Address = netip.AddrPortFrom(a, port).String()
		}
		if err == nil {
			break
		}
	}
	return found
}

// maxOffset is what a clock may be wrong by without a word.
const maxOffset = 10 * time.Second

// askAgain is how long an answer is waited for before the question is repeated:
// a datagram may be lost.
const askAgain = time.Second

var errNotNTP = errors.New("the answer is not of NTP")

// ntpEpoch is when the time of NTP begins.
var ntpEpoch = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)

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
		if _, err := conn.Write(question); err != nil {
			return 0, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(askAgain))
		n, err := conn.Read(answer)
		if isTimeout(err) {
			continue
		}
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return 0, err
		}
		if n < len(question) || answer[0]&7 != 4 || !bytes.Equal(answer[24:32], question[40:]) {
			return 0, errNotNTP
		}
		if stratum := answer[1]; stratum == 0 {
			return 0, fmt.Errorf("the server refuses with %q", clean(string(answer[12:16])))
		}
		seconds := binary.BigEndian.Uint32(answer[40:])
		return time.Until(ntpEpoch.Add(time.Duration(seconds) * time.Second)), nil
	}
	return 0, context.Cause(ctx)
}
