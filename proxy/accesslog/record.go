// Package accesslog writes one record for each request that reached a decision.
package accesslog

import (
	"net/netip"
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
