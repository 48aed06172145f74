-- A store as version 1 made it.
PRAGMA auto_vacuum = INCREMENTAL;
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
INSERT INTO records (id, time, node, client, user, method, host, port, url, service, action, rule, status, up, down, duration, connect, upstream, agent, error) VALUES
	(1, 1700000000000, 'n', x'00000000000000000000ffff0a010203', '', 'CONNECT', 'com.apple.gs.', 443, '', 'software-update', 'tunnel', 'apple', 200, 10, 20, 5000000, 1000, '17.1.2.3:443', 'a', ''),
	(2, 1700000001000, 'n', x'00000000000000000000ffff0a010204', 'anna', 'GET', 'org.example.www.', 80, 'http://www.example.org/', 'other', 'forward', 'default', 200, 1, 2, 1000, 0, '', '', ''),
	(3, 1700003600000, 'n', x'20010db8000000000000000000000001', '', 'CONNECT', '!192.0.2.1', 443, '', 'other', 'error', 'default', 502, 0, 0, 1000, 0, '', '', 'no route'),
	(4, 1700003601000, 'n', x'', '', 'CONNECT', 'example.games.', 443, '', 'other', 'deny', 'games', 403, 0, 0, 1000, 0, '', '', 'told so');
INSERT INTO files VALUES (12345, 678, 0);
INSERT INTO meta VALUES ('horizon', 1600000000000);
PRAGMA user_version = 1;
