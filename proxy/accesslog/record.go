// Package accesslog writes one record for each request that reached a decision.
package accesslog

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"espalier/policy"
)

// A Record is one finished exchange: a tunnel, a forwarded request, or one that
// was refused or failed. Its JSON form has every field in every record.
type Record struct {
	Time     time.Time      `json:"time"`    // end of the exchange
	ID       ID             `json:"id"`      // unique over restarts
	Client   netip.Addr     `json:"client"`  // address of the client
	User     string         `json:"user"`    // name that the client signed in with; empty without sign-in
	Method   string         `json:"method"`  // CONNECT, GET, …
	Host     string         `json:"host"`    // normalised; as sent (cut and cleaned) if it is not a name
	Port     uint16         `json:"port"`    //
	URL      string         `json:"url"`     // plain and intercepted requests: without query and fragment
	Service  string         `json:"service"` // id from the catalogue
	Action   policy.Action  `json:"action"`
	Rule     string         `json:"rule"`     // rule that decided
	Status   int            `json:"status"`   // as answered to the client; 200 for a tunnel
	Up       int64          `json:"up"`       // bytes of payload from the client
	Down     int64          `json:"down"`     // bytes of payload to the client
	Duration time.Duration  `json:"-"`        // from the head's arrival to Time; duration_ms in JSON
	Connect  time.Duration  `json:"-"`        // look-up and connect to the upstream, 0 without one; connect_ms in JSON
	Upstream netip.AddrPort `json:"upstream"` //
	Agent    string         `json:"agent"`    // User-Agent
	Error    string         `json:"error"`    // why it failed, for the administrator; empty if it did not
	Node     string         `json:"node"`     // instance that wrote it: set in records that are read, ignored by Write
}

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
