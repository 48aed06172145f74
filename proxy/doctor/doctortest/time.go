package doctortest

import (
	"encoding/binary"
	"net"
	"time"
)

// TellTime answers questions of NTP until conn is closed. change, where it is
// not nil, may spoil each answer; what it returns is sent.
func TellTime(conn net.PacketConn, change func([]byte) []byte) {
	buf := make([]byte, 64)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if n < 48 || buf[0]&7 != 3 {
			continue
		}
		answer := make([]byte, 48)
		answer[0], answer[1] = 4<<3|4, 2
		copy(answer[24:32], buf[40:48])
		seconds := time.Since(time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)) / time.Second
		binary.BigEndian.PutUint32(answer[40:], uint32(seconds))
		if change != nil {
			answer = change(answer)
		}
		_, _ = conn.WriteTo(answer, from)
	}
}
