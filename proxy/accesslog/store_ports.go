package accesslog

import (
	"context"
	"database/sql"
	"net/netip"
	"strings"
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
	query := strings.Builder{}
	query.WriteString("SELECT client, user, host, port, count(*), max(time) FROM records INDEXED BY records_time" +
		" WHERE time >= ? AND time < ? AND port > 0 AND rule <> ?")
	args := []any{from.UnixMilli(), to.UnixMilli(), policy.RuleClients}
	for _, r := range ports {
		query.WriteString(" AND port NOT BETWEEN ? AND ?")
		args = append(args, r.First, r.Last)
	}
	query.WriteString(" GROUP BY 1, 2, 3, 4")
	err = s.searching(func(db *sql.DB) error {
		rows, err := db.QueryContext(ctx, query.String(), args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var u PortUse
			var client []byte
			var last int64
			if err := rows.Scan(&client, &u.User, &u.Host, &u.Port, &u.Count, &last); err != nil {
				return err
			}
			u.Client, u.Host, u.Last = addrOf(client), hostOf(u.Host), time.UnixMilli(last).UTC()
			list = append(list, u)
		}
		return rows.Err()
	})
	return list, err
}
