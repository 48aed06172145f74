package accesslog

import (
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"espalier/policy"
)

// schemaVersion is that of the tables, in PRAGMA user_version; 0 is an empty database.
const schemaVersion = 2

// schema makes the tables.
//
// Times are milliseconds, durations microseconds. A client is 16 bytes, so that a
// network is a range; a host is as storedHost writes it, so that a domain is one.
// Indexes leave out what most records have in common: there, going through the
// records by time finds enough soon.
const schema = `
CREATE TABLE IF NOT EXISTS records (
	seq      INTEGER PRIMARY KEY,
	id       INTEGER NOT NULL UNIQUE,
	time     INTEGER NOT NULL,
	node     TEXT    NOT NULL,
	client   BLOB    NOT NULL,
	user     TEXT    NOT NULL,
	method   TEXT    NOT NULL,
	host     TEXT    NOT NULL,
	port     INTEGER NOT NULL,
	url      TEXT    NOT NULL,
	service  TEXT    NOT NULL,
	action   TEXT    NOT NULL,
	rule     TEXT    NOT NULL,
	status   INTEGER NOT NULL,
	up       INTEGER NOT NULL,
	down     INTEGER NOT NULL,
	duration INTEGER NOT NULL,
	connect  INTEGER NOT NULL,
	upstream TEXT    NOT NULL,
	agent    TEXT    NOT NULL,
	error    TEXT    NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS records_time     ON records (time);
CREATE INDEX IF NOT EXISTS records_client   ON records (client, time);
CREATE INDEX IF NOT EXISTS records_host     ON records (host, time);
CREATE INDEX IF NOT EXISTS records_service  ON records (service, time);
CREATE INDEX IF NOT EXISTS records_user     ON records (user, time)   WHERE user <> '';
CREATE INDEX IF NOT EXISTS records_rule     ON records (rule, time)   WHERE rule NOT IN ('apple', 'default');
CREATE INDEX IF NOT EXISTS records_action   ON records (action, time) WHERE action NOT IN ('tunnel', 'forward');
CREATE INDEX IF NOT EXISTS records_status   ON records (status, time) WHERE status <> 200;
CREATE INDEX IF NOT EXISTS records_error    ON records (time)         WHERE error <> '';
CREATE INDEX IF NOT EXISTS records_bytes    ON records (up + down)    WHERE up + down >= 1000000;
CREATE INDEX IF NOT EXISTS records_duration ON records (duration)     WHERE duration >= 60000000;

-- How far files of the log are read. first is the sum of a file's first line,
-- which stays when the file is renamed or compressed.
CREATE TABLE IF NOT EXISTS files (
	first    INTEGER PRIMARY KEY,
	offset   INTEGER NOT NULL,
	complete INTEGER NOT NULL
) STRICT;

-- Single values: horizon is the time before which records were removed.
CREATE TABLE IF NOT EXISTS meta (
	key   TEXT PRIMARY KEY,
	value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Sums by time. span and start are seconds. Errors are records with an error that
-- were not refused.
CREATE TABLE IF NOT EXISTS traffic (
	span     INTEGER NOT NULL,
	start    INTEGER NOT NULL,
	service  TEXT    NOT NULL,
	action   TEXT    NOT NULL,
	requests INTEGER NOT NULL,
	errors   INTEGER NOT NULL,
	up       INTEGER NOT NULL,
	down     INTEGER NOT NULL,
	PRIMARY KEY (span, start, service, action)
) STRICT, WITHOUT ROWID;
-- name is as in records, and 0 for all that are not listed one by one.
CREATE TABLE IF NOT EXISTS talkers (
	span     INTEGER NOT NULL,
	start    INTEGER NOT NULL,
	kind     TEXT    NOT NULL,
	name     ANY     NOT NULL,
	requests INTEGER NOT NULL,
	errors   INTEGER NOT NULL,
	up       INTEGER NOT NULL,
	down     INTEGER NOT NULL,
	PRIMARY KEY (span, start, kind, name)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
`

// ErrVersion is returned for a store that another version of the program has made.
var ErrVersion = errors.New("another version of the program has made it; it is left as it is")

// checkVersion returns the version of the tables, 0 if there are none.
func checkVersion(db *sql.DB) (version int, err error) {
	err = db.QueryRow("PRAGMA user_version").Scan(&version)
	if err == nil && version != 0 && version != schemaVersion {
		err = fmt.Errorf("version %d of the tables, want %d: %w", version, schemaVersion, ErrVersion)
	}
	return version, err
}

// makeTables makes the tables in an empty database. Another process may be faster.
func makeTables(db *sql.DB) error {
	version, err := checkVersion(db)
	if err != nil || version != 0 {
		return err
	}
	_, err = db.Exec("BEGIN IMMEDIATE;" + schema + "COMMIT")
	return err
}

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
