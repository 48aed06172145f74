package accesslog

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"espalier/policy"
)

const columns = "id, time, node, client, user, method, host, port, url, service, action, rule, status, up, down, duration, connect, upstream, agent, error"

const insertRecord = "INSERT INTO records (" + columns + ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING"

// values are those of columns. Texts are bounded as in the log: an imported file
// may have been made by anybody.
func (r *Record) values() []any {
	upstream := ""
	if r.Upstream.IsValid() {
		upstream = r.Upstream.String()
	}
	return []any{
		int64(r.ID), r.Time.UnixMilli(), clean(r.Node, maxHost), storedAddr(r.Client), clean(r.User, maxUser),
		clean(r.Method, maxMethod), storedHost(clean(r.Host, maxHost)), r.Port, clean(r.URL, maxURL),
		clean(r.Service, maxUser), clean(string(r.Action), maxUser), clean(r.Rule, maxHost), r.Status,
		bounded(r.Up), bounded(r.Down), r.Duration.Microseconds(), r.Connect.Microseconds(), upstream,
		clean(r.Agent, maxAgent), clean(r.Error, maxError),
	}
}

// bounded keeps a number of bytes where sums of them cannot overflow.
func bounded(n int64) int64 { return min(max(n, 0), 1<<50) }

// scan reads a row of columns, and behind them seq.
func (r *Record) scan(scan func(...any) error, seq *int64) error {
	var id, at, duration, connect int64
	var client []byte
	var host, action, upstream string
	err := scan(&id, &at, &r.Node, &client, &r.User, &r.Method, &host, &r.Port, &r.URL, &r.Service, &action,
		&r.Rule, &r.Status, &r.Up, &r.Down, &duration, &connect, &upstream, &r.Agent, &r.Error, seq)
	if err != nil {
		return err
	}
	r.ID, r.Time, r.Action = ID(id), time.UnixMilli(at).UTC(), policy.Action(action)
	r.Client, r.Host = addrOf(client), hostOf(host)
	r.Duration, r.Connect = time.Duration(duration)*time.Microsecond, time.Duration(connect)*time.Microsecond
	if upstream != "" {
		r.Upstream, _ = netip.ParseAddrPort(upstream)
	}
	return nil
}

// storedAddr is 16 bytes, IPv4 mapped into IPv6; none for the zero Addr.
func storedAddr(a netip.Addr) []byte {
	if !a.IsValid() {
		return []byte{}
	}
	b := a.As16()
	return b[:]
}

func addrOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap()
}

// storedHost turns the labels of a name around, each with its dot, so that a
// domain and all below it have the same beginning: com.apple.gs. Addresses, and
// what is no name, have ! in front instead.
func storedHost(host string) string {
	if _, err := netip.ParseAddr(host); err == nil || host == "" || strings.Contains(host, "!") || strings.HasSuffix(host, ".") {
		return "!" + host
	}
	return turned(host) + "."
}

func hostOf(stored string) string {
	if host, ok := strings.CutPrefix(stored, "!"); ok {
		return host
	}
	return turned(strings.TrimSuffix(stored, "."))
}

func turned(host string) string {
	labels := strings.Split(host, ".")
	slices.Reverse(labels)
	return strings.Join(labels, ".")
}
