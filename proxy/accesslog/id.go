package accesslog

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// ID identifies a request in records, operational logs and error pages.
type ID uint64

var lastID atomic.Uint64

func init() { lastID.Store(uint64(time.Now().UnixNano())) }

// NextID returns a new ID. IDs count up from the nanosecond at which the process
// started, so they stay unique over restarts without being stored.
func NextID() ID { return ID(lastID.Add(1)) }

const idDigits = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's base 32

// AppendText appends the 13 characters of the ID.
func (id ID) AppendText(b []byte) ([]byte, error) {
	for shift := 60; shift >= 0; shift -= 5 {
		b = append(b, idDigits[id>>shift&31])
	}
	return b, nil
}

// String returns the 13 characters of the ID.
func (id ID) String() string {
	b, _ := id.AppendText(make([]byte, 0, 13))
	return string(b)
}

// UnmarshalText parses the 13 characters of an ID.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != 13 {
		return fmt.Errorf("%q is no request id: it must have 13 characters", text)
	}
	var n ID
	for i, c := range text {
		digit := strings.IndexByte(idDigits, c)
		if digit < 0 || i == 0 && digit > 15 { // 65 bits, of which one is never set
			return fmt.Errorf("%q is no request id", text)
		}
		n = n<<5 | ID(digit)
	}
	*id = n
	return nil
}
