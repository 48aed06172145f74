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
	Time     time.Time     // end of the exchange
	ID       ID            // unique over restarts
	Client   netip.Addr    // who asked
	User     string        // who signed in; empty where nobody did
	Method   string        // CONNECT, GET, …
	Host     string        // normalised; as sent (cut and cleaned) where it is no name
	Port     uint16        //
	URL      string        // plain and intercepted requests: without query and fragment
	Service  string        // id from the catalogue
	Action   policy.Action //
	Rule     string        // what decided
	Status   int           // as answered to the client; 200 for a tunnel
	Up, Down int64         // bytes of payload, from and to the client
	Duration time.Duration // from the head's arrival to Time
	Connect  time.Duration // look-up and connect to the upstream; 0 where none was tried
	Upstream netip.AddrPort
	Agent    string // User-Agent
	Error    string // why it failed, for the administrator; empty where it did not
	Node     string // the instance that wrote it: set in records that are read, not looked at by Write
}
