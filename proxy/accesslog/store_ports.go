package accesslog

import (
	"context"
	"net/netip"
	"time"

	"espalier/policy"
)

// A PortUse counts the requests of a client and user to a destination.
type PortUse struct {
	Client netip.Addr
	User   string
	Host   string
	Port   uint16
	Count  int
	Last   time.Time // of the latest request
}

// PortsBeyond returns the requests in a window of time, from inclusive and to
// exclusive, whose port is in none of ports. Requests by clients outside
// proxy.clients, and those whose destination was invalid, are left out. It reads
// every record of the window.
func (s *Store) PortsBeyond(ctx context.Context, from, to time.Time, ports []policy.PortRange) (list []PortUse, err error) {
	query := "SELECT client, user, host, port, count(*), max(time) FROM records INDEXED BY records_time" +
		" WHERE time >= ? AND time < ? AND port > 0 AND rule <> ?"
	args := []any{from.UnixMilli(), to.UnixMilli(), policy.RuleClients}
	for _, r := range ports {
		query += " AND port NOT BETWEEN ? AND ?"
		args = append(args, r.First, r.Last)
	}
	err = s.query(ctx, query+" GROUP BY 1, 2, 3, 4", args, func(scan func(...any) error) error {
		var u PortUse
		var client []byte
		var last int64
		err := scan(&client, &u.User, &u.Host, &u.Port, &u.Count, &last)
		u.Client, u.Host, u.Last = addrOf(client), hostOf(u.Host), time.UnixMilli(last).UTC()
		list = append(list, u)
		return err
	})
	return list, err
}
