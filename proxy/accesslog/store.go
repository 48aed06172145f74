package accesslog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A Store holds records to be searched, and sums of them by time. It is a SQLite
// database that follows the log's JSON file, which stays the record of truth:
// nothing of a request waits for the store, one that lags reads on from where it
// stopped, and one that is lost is filled again from the files that are kept.
//
// Every record is in the store once, whatever ends a process amid writing: the
// place in the file is in the same transaction as the records up to it, and
// their sums. Several processes may follow the same file, as they do while one
// takes over from another: records that are there are passed over.
//
// Its methods are safe for concurrent use. It is a prometheus.Collector.
type Store struct {
	cfg  StoreConfig
	path string
	log  *zap.Logger
	now  func() time.Time
	bounds

	dbs     sync.RWMutex // held for reading while the databases are used
	write   *sql.DB      // one connection; nil in a store opened for reading
	read    *sql.DB      // nil while the store cannot be opened
	damaged atomic.Bool  // a search has met damage

	mu     sync.Mutex
	health StoreHealth

	source string               // the JSON file that is followed; empty until follow
	files  map[string]fileState // by path
	tidied time.Time
	summed int64 // the hour in which tidySums ran
	wake   chan struct{}
	stop   context.CancelFunc
	done   chan struct{}
}

// OpenStore opens the store of cfg, and makes it where there is none; dir is the
// data directory. A file that is no database, or a damaged one, is moved aside to
// PATH.damaged, and the log says so; what has been logged since comes again from
// the log's files. Where the disk does not let it be opened now, it is tried again
// while it follows a log. Close must be called.
func OpenStore(cfg StoreConfig, dir string, log *zap.Logger) (*Store, error) {
	s := &Store{
		cfg: cfg, path: within(dir, cfg.Path), log: log, now: time.Now, bounds: defaultBounds,
		files: map[string]fileState{}, wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return nil, fmt.Errorf("store %s: %w", s.path, err)
	}
	err := s.open()
	if _, onDisk := errors.AsType[*sqlite.Error](err); err != nil && !onDisk {
		return nil, fmt.Errorf("store %s: %w", s.path, err)
	}
	return s, nil
}

// ReadStore opens the store of cfg for searching, beside a process that writes it
// or without one. The error is fs.ErrNotExist where there is none.
func ReadStore(cfg StoreConfig, dir string) (*Store, error) {
	s := &Store{cfg: cfg, path: within(dir, cfg.Path), log: zap.NewNop(), now: time.Now}
	if _, err := os.Stat(s.path); err != nil {
		return nil, err
	}
	s.read = connect(s.path, "mode=ro")
	version, err := checkVersion(s.read)
	if err == nil && version == 0 {
		err = errors.New("it has no tables yet; start `espalier run` once")
	}
	if err != nil {
		s.read.Close()
		return nil, fmt.Errorf("store %s: %w", s.path, err)
	}
	return s, nil
}

// open opens the databases. If the file is damaged it is moved aside, and a new one made.
func (s *Store) open() error {
	err := s.openFile()
	if isDamage(err) {
		err = s.begin(err)
	}
	return err
}

// openFile opens the databases, and makes what is missing.
func (s *Store) openFile() error {
	if err := create(s.path); err != nil {
		return err
	}
	write := connect(s.path, "_txlock=immediate&_pragma=auto_vacuum(INCREMENTAL)&_pragma=journal_mode(WAL)"+
		"&_pragma=synchronous(NORMAL)&_pragma=secure_delete(ON)&_pragma=journal_size_limit(16777216)&_pragma=cache_size(-16384)")
	write.SetMaxOpenConns(1)
	if err := makeTables(write); err != nil {
		write.Close()
		return err
	}
	s.write, s.read = write, connect(s.path, "_pragma=query_only(1)")
	s.read.SetMaxOpenConns(4)
	return nil
}

// create makes the file where there is none, for nobody else to read. What root
// makes, as by `espalier logs import`, belongs to whom the directory does.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && owner.Uid != 0 {
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// connect returns a database that is opened when it is used.
func connect(path, options string) *sql.DB {
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path)+"?_pragma=busy_timeout(10000)&"+options)
	if err != nil {
		panic(err) // the driver is not part of the program
	}
	return db
}

// isDamage reports whether err says that the file is no good.
func isDamage(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB)
}

// begin moves the damaged store aside and begins a new one.
func (s *Store) begin(why error) error {
	aside := s.path + ".damaged"
	for _, end := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(s.path+end, aside+end); err != nil && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(why, err)
		}
	}
	s.log.Error("the store of access records was damaged; it is made again from the access log's files. Sums of days before these are lost",
		zap.String("moved_to", aside), zap.Error(why))
	return s.openFile()
}

// Close stores what the log has written so far, and closes the store.
func (s *Store) Close() error {
	if s.stop != nil {
		s.stop()
		<-s.done
	}
	s.dbs.Lock()
	defer s.dbs.Unlock()
	return s.close()
}

// close closes the databases, that for writing last, so that it can tidy up. dbs
// is held.
func (s *Store) close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	s.read, s.write = nil, nil
	return errors.Join(errs...)
}

var errNotOpen = errors.New("the store is not open: it was closed, or the disk does not let it be opened")

// query calls row with the Scan of each row of a query.
func (s *Store) query(ctx context.Context, query string, args []any, row func(scan func(...any) error) error) error {
	s.dbs.RLock()
	defer s.dbs.RUnlock()
	if s.read == nil {
		return errNotOpen
	}
	err := eachRow(ctx, s.read, query, args, row)
	if err == nil {
		return nil
	}
	if isDamage(err) && s.write != nil {
		s.damaged.Store(true)
		signal(s.wake)
	}
	return fmt.Errorf("store: %w", err)
}

// eachRow is query for a database or a transaction.
func eachRow(ctx context.Context, in interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}, query string, args []any, row func(scan func(...any) error) error) error {
	rows, err := in.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// number returns the number that a query selects.
func (s *Store) number(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = s.query(ctx, query, args, func(scan func(...any) error) error { return scan(&n) })
	return n, err
}

// transact commits what f does, all of it or nothing.
func (s *Store) transact(ctx context.Context, f func(*sql.Tx) error) error {
	s.dbs.RLock()
	defer s.dbs.RUnlock()
	if s.write == nil {
		return errNotOpen
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}
