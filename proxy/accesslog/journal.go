package accesslog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// A journal keeps the tunnels of a process that are open in a file of the data
// directory, so that each has a record though the process is killed. A process has the
// lock (flock(2)) of its file as long as it lives; the next one finds files without a
// lock, writes the missing records and removes the files. A line of the file is one of
//
//	+RECORD      a tunnel is open: its record so far in JSON; time is that of its beginning
//	=ID UP DOWN  bytes so far
//	-ID          the record is in the access log
//
// Tunnels that end within an interval are in no line. A record is in its file before
// its tunnel's end is in the journal; between the two, the file is looked through for
// it, which takes JSON.
type journal struct {
	log  *Log
	path string

	mu      sync.Mutex // held shortly
	open    []*Tunnel
	changed []*Tunnel // since the last line about them; some have ended
	told    bool      // opened was told of one of them
	ended   []ID      // records that were written since

	writing sync.Mutex // taken before mu
	spare   []*Tunnel  // empty, with room for the next changed
	lines   []byte     // empty, with room for the next lines
	file    *os.File   // nil: to be written anew
	size    int64      // of the file
	fresh   int64      // size when it was written anew
	wrote   time.Time
	failing bool
	left    []leftover // their records are written, and on their way to the disk

	opened     chan struct{} // there is a tunnel that is not in the file
	flushed    chan struct{} // records have reached the disk
	stop, done chan struct{}
	once       sync.Once // closes stop
}

// A Tunnel is an open tunnel in the journal. The nil Tunnel is in none. Its methods are
// safe for concurrent use.
type Tunnel struct {
	j        *journal
	r        *Record // the owner's once place is none
	up, down int64
	place    int32 // in journal.open
	known    bool  // to the file
	changed  bool  // it is in journal.changed
	cut      bool  // Interrupt has written the record
}

const none = -1

const (
	journalHeader = "espalier tunnels 1\n"
	journalPrefix = "tunnels-"
	journalSuffix = ".journal"
	// journalInterval is how often lines are written. Bytes are told an interval later.
	journalInterval = 500 * time.Millisecond
	// journalBurst is how many times in an interval lines are written at once, when a
	// tunnel has opened or records have reached the disk. The next wait for its end, and
	// share one write: each makes the access log flush, and the store read it.
	journalBurst = 10
	// journalTouch is how often the file's time is set while nothing moves: it is the end
	// of tunnels that are interrupted.
	journalTouch = 30 * time.Second
	// journalSlack is how much of the file may be out of date, beside three times its
	// size when it was written anew.
	journalSlack = 1 << 20
	// maxLines is how much is written at a time, about.
	maxLines = 32 << 10
)

// Interrupted is the error in records of tunnels that were open when their process
// ended without a chance to end them.
const Interrupted = "interrupted"

// KeepJournal begins a journal of open tunnels in dir, until Close, and writes the
// records of tunnels that processes have left open there, of each of which recovered is
// told. progress is to have Moved called, soon, for the tunnels that have carried bytes
// since the call before. It is called once, before anything is written. Without an
// access log there is no journal.
func (l *Log) KeepJournal(dir string, progress func(), recovered func(*Record)) {
	if len(l.sinks) == 0 {
		return
	}
	j := l.newJournal(dir)
	for _, s := range l.sinks {
		s.out.tell(func() { signal(j.flushed) })
	}
	go j.run(progress, recovered)
}

func (l *Log) newJournal(dir string) *journal {
	l.journal = &journal{
		log: l, path: filepath.Join(dir, journalPrefix+NextID().String()+journalSuffix),
		opened: make(chan struct{}, 1), flushed: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	_ = l.journal.flush() // makes the file
	return l.journal
}

func (j *journal) run(progress func(), recovered func(*Record)) {
	defer close(j.done)
	tick := time.NewTicker(journalInterval)
	defer tick.Stop()
	others, burst := true, 0
	for {
		if others {
			others = j.takeOver(recovered)
		}
		select {
		case <-tick.C:
			_ = j.flush() // the access log tells of its trouble
			progress()
			burst = 0
		case <-j.opened:
			if burst++; burst <= journalBurst {
				_ = j.flush()
			}
		case <-j.flushed:
			j.mu.Lock()
			due := len(j.ended) > 0
			j.mu.Unlock()
			if due {
				if burst++; burst <= journalBurst {
					_ = j.flush()
				}
			}
		case <-j.stop:
			return
		}
	}
}

// OpenTunnel notes a tunnel that is open. r, in which Time is that of its beginning, is
// not to be modified until Settle.
func (l *Log) OpenTunnel(r *Record) *Tunnel {
	j := l.journal
	if j == nil {
		return nil
	}
	t := &Tunnel{j: j, r: r, up: r.Up, down: r.Down, changed: true}
	j.mu.Lock()
	t.place = int32(len(j.open))
	j.open = append(j.open, t)
	j.changed = append(j.changed, t)
	first := !j.told
	j.told = true
	j.mu.Unlock()
	if first {
		signal(j.opened)
	}
	return t
}

// Moved notes how many bytes the tunnel has carried so far.
func (t *Tunnel) Moved(up, down int64) {
	if t == nil {
		return
	}
	t.j.mu.Lock()
	defer t.j.mu.Unlock()
	if t.up == up && t.down == down {
		return
	}
	t.up, t.down = up, down
	if !t.changed && t.place != none {
		t.changed = true
		t.j.changed = append(t.j.changed, t)
	}
}

// Settle gives the record back: the tunnel has ended, and Write follows. Further calls
// do nothing.
func (t *Tunnel) Settle() {
	if t == nil {
		return
	}
	t.j.mu.Lock()
	defer t.j.mu.Unlock()
	t.j.remove(t)
}

// remove takes t out of what is open. mu is held.
func (j *journal) remove(t *Tunnel) {
	if t.place == none {
		return
	}
	last := len(j.open) - 1
	j.open[t.place], j.open[last].place = j.open[last], t.place
	j.open[last] = nil
	j.open, t.place = j.open[:last], none
}

// WriteTunnel is Write for a tunnel after Settle. t may be nil.
func (l *Log) WriteTunnel(t *Tunnel, r *Record) {
	if t == nil {
		l.Write(r)
		return
	}
	t.j.mu.Lock()
	cut := t.cut
	t.j.mu.Unlock()
	if cut {
		return
	}
	l.Write(r)
	t.j.mu.Lock()
	if t.known {
		t.j.ended = append(t.j.ended, r.ID)
	}
	t.j.mu.Unlock()
}

// Interrupt writes the records of the tunnels that are open, and flushes, for a process
// that ends at once.
func (l *Log) Interrupt() error {
	j := l.journal
	if j == nil {
		return l.Flush()
	}
	j.mu.Lock()
	records := make([]Record, 0, len(j.open))
	for len(j.open) > 0 {
		t := j.open[len(j.open)-1]
		r := *t.r
		r.Up, r.Down = t.up, t.down
		records = append(records, r)
		t.cut = true
		j.remove(t)
	}
	j.mu.Unlock()
	for i := range records {
		r := &records[i]
		r.interrupt(time.Now())
		l.Write(r)
	}
	j.mu.Lock()
	for i := range records {
		j.ended = append(j.ended, records[i].ID)
	}
	j.mu.Unlock()
	return errors.Join(l.Flush(), j.flush())
}

// interrupt makes what the journal has of a tunnel its record.
func (r *Record) interrupt(end time.Time) {
	begin := r.Time
	if end.Before(begin) { // the clock was set back
		end = begin
	}
	r.Time, r.Duration, r.Error = end, end.Sub(begin), Interrupted
}

// flush writes lines for what has changed. While the access log fails it writes
// nothing, since the ends cannot be told; everything is as before then.
func (j *journal) flush() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	changed, ended, open := j.changed, j.ended, len(j.open)
	j.changed, j.spare, j.ended, j.told = j.spare, nil, nil, false
	j.mu.Unlock()
	if len(changed)+len(ended)+len(j.left) == 0 && j.file != nil && !j.failing {
		if open > 0 && time.Since(j.wrote) > journalTouch {
			j.wrote = time.Now()
			_ = os.Chtimes(j.path, j.wrote, j.wrote)
		}
		j.spare = changed
		return nil
	}
	if len(ended)+len(j.left) > 0 {
		if err := j.log.Flush(); err != nil {
			j.mu.Lock()
			j.changed, j.ended = append(changed, j.changed...), append(ended, j.ended...)
			j.mu.Unlock()
			return err
		}
		j.clearLeft(true)
	}
	var err error
	anew := j.file == nil || j.size > journalSlack+4*j.fresh
	write := func(lines []byte) []byte {
		if err == nil && !anew && len(lines) > 0 {
			var n int
			n, err = j.file.Write(lines)
			j.size += int64(n)
		}
		return lines[:0]
	}
	lines := j.lines
	for _, t := range changed {
		if lines = j.line(lines, t); len(lines) >= maxLines {
			lines = write(lines)
		}
	}
	clear(changed)
	j.spare = changed[:0]
	for _, id := range ended {
		lines = append(lines, '-')
		lines, _ = id.AppendText(lines)
		if lines = append(lines, '\n'); len(lines) >= maxLines {
			lines = write(lines)
		}
	}
	if j.lines = write(lines); anew {
		err = j.rewrite()
	}
	j.wrote = time.Now()
	switch {
	case err == nil:
		j.failing = false
	case !j.failing:
		j.failing = true
		j.log.log.Error("the journal of open tunnels cannot be written; tunnels that a crash interrupts may have no record", zap.String("file", j.path), zap.Error(err))
	}
	if err != nil && j.file != nil { // with part of a line, perhaps
		j.size = journalSlack + 4*j.fresh + 1
	}
	return nil
}

// line appends what the file is to be told of t, nothing if it has ended.
func (j *journal) line(b []byte, t *Tunnel) []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	t.changed = false
	switch {
	case t.place == none:
	case t.known:
		b = append(b, '=')
		b, _ = t.r.ID.AppendText(b)
		b = strconv.AppendInt(append(b, ' '), t.up, 10)
		b = strconv.AppendInt(append(b, ' '), t.down, 10)
		b = append(b, '\n')
	default:
		t.known = true
		r := *t.r
		r.Up, r.Down = t.up, t.down
		if j.log.anonymize != nil {
			j.log.anonymize(&r)
		}
		b = recordEncoder.append(append(b, '+'), &r)
	}
	return b
}

// rewrite writes the file anew, with nothing but what is open. writing is held.
func (j *journal) rewrite() (err error) {
	j.mu.Lock()
	open := slices.Clone(j.open)
	for _, t := range open {
		t.known = false
	}
	j.mu.Unlock()
	temp := j.path + ".tmp"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temp)
		}
	}()
	if err := lock(f); err != nil {
		return fmt.Errorf("lock %s: %w", temp, err)
	}
	lines, size := []byte(journalHeader), int64(0)
	for i := 0; i < len(open) || len(lines) > 0; i++ {
		if i < len(open) {
			lines = j.line(lines, open[i])
		}
		if len(lines) >= maxPiece || i >= len(open) {
			n, err := f.Write(lines)
			if err != nil {
				return err
			}
			size, lines = size+int64(n), lines[:0]
		}
	}
	// Records of tunnels that have ended meanwhile.
	if err := j.log.Flush(); err != nil {
		return err
	}
	if err := os.Rename(temp, j.path); err != nil {
		return err
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.size, j.fresh = f, size, size
	return nil
}

// close ends the journal. The file stays if a tunnel has no record, or good is false:
// records may not have reached the disk.
func (j *journal) close(good bool) {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	good = good && len(j.open) == 0
	j.mu.Unlock()
	j.clearLeft(good)
	if j.file != nil {
		if good {
			os.Remove(j.path)
		}
		j.file.Close()
	}
}

// lock takes the lock of an open file. It fails if another process has it.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
