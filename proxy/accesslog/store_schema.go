package accesslog

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations bring a store from the version that is their index to the next.
// PRAGMA user_version is how many were made. They are never changed, for stores
// stand where they ended.
//
// Times are milliseconds, durations microseconds. A client is 16 bytes, so that a
// network is a range; a host is as storedHost writes it, so that a domain is one.
// Indexes leave out what most records have in common: there, going through the
// records by time finds enough soon.
var migrations = []string{`
CREATE TABLE records (
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
CREATE INDEX records_time     ON records (time);
CREATE INDEX records_client   ON records (client, time);
CREATE INDEX records_host     ON records (host, time);
CREATE INDEX records_service  ON records (service, time);
CREATE INDEX records_user     ON records (user, time)   WHERE user <> '';
CREATE INDEX records_rule     ON records (rule, time)   WHERE rule NOT IN ('apple', 'default');
CREATE INDEX records_action   ON records (action, time) WHERE action NOT IN ('tunnel', 'forward');
CREATE INDEX records_status   ON records (status, time) WHERE status <> 200;
CREATE INDEX records_error    ON records (time)         WHERE error <> '';
CREATE INDEX records_bytes    ON records (up + down)    WHERE up + down >= 1000000;
CREATE INDEX records_duration ON records (duration)     WHERE duration >= 60000000;

-- How far files of the log are read. first is the sum of a file's first line,
-- which stays when the file is renamed or compressed.
CREATE TABLE files (
	first    INTEGER PRIMARY KEY,
	offset   INTEGER NOT NULL,
	complete INTEGER NOT NULL
) STRICT;

-- Single values: horizon is the time before which records were removed.
CREATE TABLE meta (
	key   TEXT PRIMARY KEY,
	value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`, `
-- Sums by time. span and start are seconds. Errors are records with an error that
-- were not refused.
CREATE TABLE traffic (
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
CREATE TABLE talkers (
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
WITH spans (span) AS (VALUES (60), (3600), (86400))
INSERT INTO traffic
SELECT span, time / 1000 / span * span AS start, service, action,
	count(*), sum(error <> '' AND action NOT IN ('deny', 'challenge')), sum(up), sum(down)
FROM records, spans GROUP BY 1, 2, 3, 4;
WITH spans (span) AS (VALUES (3600), (86400)), kinds (kind) AS (VALUES ('host'), ('client'))
INSERT INTO talkers
SELECT span, time / 1000 / span * span AS start, kind, iif(kind = 'host', host, client) AS name,
	count(*), sum(error <> '' AND action NOT IN ('deny', 'challenge')), sum(up), sum(down)
FROM records, spans, kinds GROUP BY 1, 2, 3, 4;
`}

// migrate brings the tables up to date.
func migrate(db *sql.DB) error {
	var version int
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return ErrNewer
	}
	if version == len(migrations) {
		return nil
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	// Another process may have been faster.
	if err := tx.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	for ; version < len(migrations); version++ {
		if _, err := tx.Exec(migrations[version]); err != nil {
			return fmt.Errorf("bringing it to version %d: %w", version+1, err)
		}
		if _, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", version+1)); err != nil {
			return err
		}
	}
	return tx.Commit()
}
