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
//	+RECORD      a tunnel is open: its record so far in JSON; time is that of its beginning.
//	             A further one takes its place
//	=ID UP DOWN  bytes so far
//	-ID          the record is in the access log
//
// Tunnels that end young are in no line. A record is in its file before
// its tunnel's end is in the journal; between the two, the file is looked through for
// it, which takes JSON.
type journal struct {
	log  *Log
	path string

	mu      sync.Mutex // held shortly
	young   []*Tunnel  // open, and not old enough for a line
	open    []*Tunnel  // the others
	changed []*Tunnel  // of open, since the last line about them; some have ended
	told    bool       // run knows that there are young ones
	ended   []ID       // records that were written since

	writing sync.Mutex // taken before mu
	lines   []byte     // empty, with room for the next lines
	file    *os.File   // nil: to be written anew
	room    int64      // what the file may grow before it is written anew; negative: now
	wrote   time.Time
	failing bool
	left    []leftover // their records are written, and on their way to the disk

	wake       chan struct{} // records have reached the disk
	stirred    chan struct{} // tunnels have opened, or carried bytes
	stop, done chan struct{}
	once       sync.Once // closes stop
}

// A Tunnel is a record, and the record's place in the journal while it is that of an open
// tunnel. The zero value is in none. Its methods are safe for concurrent use.
type Tunnel struct {
	Record  Record   // the journal's between OpenTunnel and Settle
	j       *journal // nil: it was in none
	place   int32    // in journal.young or journal.open; none: it is not there any more
	young   bool     // it is in journal.young
	known   bool     // to the file
	changed bool     // it is in journal.changed
	amended bool     // the file has an older record
	cut     bool     // Interrupt has written the record
}

const none = -1

const (
	journalHeader = "espalier tunnels 1\n"
	journalPrefix = "tunnels-"
	journalSuffix = ".journal"
	// journalInterval is how often lines are written. Bytes are told an interval later.
	journalInterval = 500 * time.Millisecond
	// journalAge is the age of a tunnel's exchange from which it has a line. Most tunnels of
	// a storm end before, and cost nothing.
	journalAge = 100 * time.Millisecond
	// journalBurst is how many times in an interval lines are written at once, when records
	// have reached the disk. The next wait for its end, and share one write: each makes the
	// access log flush, and the store read it.
	journalBurst = 10
	// journalTouch is how often the file's time is set while nothing moves: it is the end
	// of tunnels that are interrupted.
	journalTouch = 30 * time.Second
	// journalSlack is how much the file may grow, beside three times its size when it was
	// written anew.
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
// since the call before; it is called some time after Stirred. It is called once, before anything is written. Without an
// access log there is no journal.
func (l *Log) KeepJournal(dir string, progress func(), recovered func(*Record)) {
	if len(l.sinks) == 0 {
		return
	}
	j := l.newJournal(dir)
	for _, s := range l.sinks {
		s.out.tell(j.recorded)
	}
	go j.run(progress, recovered)
}

func (l *Log) newJournal(dir string) *journal {
	l.journal = &journal{
		log: l, path: filepath.Join(dir, journalPrefix+NextID().String()+journalSuffix),
		wake: make(chan struct{}, 1), stirred: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	_ = l.journal.flush() // makes the file
	return l.journal
}

// run writes lines while there is news, and does nothing while there is none.
func (j *journal) run(progress func(), recovered func(*Record)) {
	defer close(j.done)
	tick := time.NewTimer(0)
	defer tick.Stop()
	soon, burst := true, 0 // the tick is within the interval
	for {
		select {
		case <-tick.C:
			others := j.takeOver(recovered)
			err := j.flush() // the access log, or flush, has told of it
			progress()
			burst, soon = 0, others || err != nil || j.waits()
			if tick.Reset(journalTouch); soon {
				tick.Reset(journalInterval)
			}
			continue
		case <-j.wake:
			if burst++; burst <= journalBurst {
				_ = j.flush()
			}
		case <-j.stirred:
		case <-j.stop:
			return
		}
		if !soon {
			soon = true
			tick.Reset(journalInterval)
		}
	}
}

// Stirred notes that tunnels have carried bytes, which progress of KeepJournal finds. It
// does not block.
func (l *Log) Stirred() {
	if l.journal != nil {
		signal(l.journal.stirred)
	}
}

// recorded wakes run, if records of tunnels have reached the disk.
func (j *journal) recorded() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.ended) > 0 {
		signal(j.wake)
	}
}

// waits reports whether there are tunnels that will have a line by their age.
func (j *journal) waits() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.young) > 0
}

// OpenTunnel notes a tunnel that is open. Time in its Record is that of its beginning.
func (l *Log) OpenTunnel(t *Tunnel) {
	j := l.journal
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	t.j, t.place, t.young = j, int32(len(j.young)), true
	j.young = append(j.young, t)
	if !j.told {
		j.told = true
		signal(j.stirred)
	}
}

// age moves the tunnels that are old enough to what is open. mu is held.
func (j *journal) age() {
	now := time.Now()
	for i := 0; i < len(j.young); {
		t := j.young[i]
		if now.Sub(t.Record.Time) < journalAge {
			i++
			continue
		}
		j.remove(t) // another is at i now
		t.place, t.young = int32(len(j.open)), false
		j.open = append(j.open, t)
		t.changed = true
		j.changed = append(j.changed, t)
	}
}

// change notes that there is to be a line about an open tunnel. mu is held.
func (j *journal) change(t *Tunnel) {
	if t.place != none && !t.young && !t.changed {
		t.changed = true
		j.changed = append(j.changed, t)
		signal(j.stirred)
	}
}

// Noted reports whether the tunnel is in a journal, or was.
func (t *Tunnel) Noted() bool { return t.j != nil }

// Change has f modify the Record, which may be that of an open tunnel.
func (t *Tunnel) Change(f func()) {
	if t.j == nil {
		f()
		return
	}
	t.j.mu.Lock()
	defer t.j.mu.Unlock()
	f()
	t.amended = true
	t.j.change(t)
}

// Moved notes how many bytes an open tunnel has carried so far.
func (t *Tunnel) Moved(up, down int64) {
	if t.j == nil {
		return
	}
	t.j.mu.Lock()
	defer t.j.mu.Unlock()
	r := &t.Record
	if t.place == none || r.Up == up && r.Down == down {
		return
	}
	r.Up, r.Down = up, down
	t.j.change(t)
}

// Settle gives the Record back: the tunnel has ended, and WriteTunnel follows. Further
// calls do nothing.
func (t *Tunnel) Settle() {
	if t.j != nil {
		t.j.mu.Lock()
		defer t.j.mu.Unlock()
		t.j.remove(t)
	}
}

// remove takes t out of what is young or open. mu is held.
func (j *journal) remove(t *Tunnel) {
	if t.place == none {
		return
	}
	from := &j.open
	if t.young {
		from = &j.young
	}
	list := *from
	last := len(list) - 1
	list[t.place], list[last].place = list[last], t.place
	list[last] = nil
	*from, t.place = list[:last], none
}

// WriteTunnel is Write for the Record of t, after Settle.
func (l *Log) WriteTunnel(t *Tunnel) {
	if t.cut {
		return
	}
	l.Write(&t.Record)
	if t.known {
		t.j.mu.Lock()
		defer t.j.mu.Unlock()
		t.j.ended = append(t.j.ended, t.Record.ID)
	}
}

// Interrupt writes the records of the tunnels that are open, and flushes, for a process
// that ends at once.
func (l *Log) Interrupt() error {
	j := l.journal
	if j == nil {
		return l.Flush()
	}
	j.mu.Lock()
	var records []Record
	for _, t := range slices.Concat(j.open, j.young) {
		records = append(records, t.Record)
		t.cut = true
		j.remove(t)
	}
	j.mu.Unlock()
	for i := range records {
		records[i].interrupt(time.Now())
		l.Write(&records[i])
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
// nothing, since the ends cannot be told; everything is as before then. Lines that it
// could not write are in the file that it writes anew at the next call.
func (j *journal) flush() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	j.age()
	changed, ended, open := j.changed, j.ended, len(j.open)
	j.changed, j.ended, j.told = nil, nil, false
	j.mu.Unlock()
	if len(changed)+len(ended)+len(j.left) == 0 && j.file != nil && !j.failing {
		if open > 0 && time.Since(j.wrote) >= journalTouch {
			j.wrote = time.Now()
			_ = os.Chtimes(j.path, j.wrote, j.wrote)
		}
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
	if j.file == nil || j.room < 0 {
		err = j.rewrite()
	} else {
		var n int64
		n, err = j.write(j.file, j.lines, changed, ended)
		j.room -= n
	}
	j.wrote = time.Now()
	if err != nil {
		j.room = -1 // part of a line may be there
		if !j.failing {
			j.log.log.Error("the journal of open tunnels cannot be written; tunnels that a crash interrupts may have no record", zap.String("file", j.path), zap.Error(err))
		}
	}
	j.failing = err != nil
	return err
}

// write writes lines to f, and what f is to be told of open and ended behind them, some
// at a time. It returns how much was written. writing is held.
func (j *journal) write(f *os.File, lines []byte, open []*Tunnel, ended []ID) (size int64, err error) {
	put := func(atLeast int) {
		if len(lines) < atLeast {
			return
		}
		if err == nil {
			var n int
			n, err = f.Write(lines)
			size += int64(n)
		}
		lines = lines[:0]
	}
	for _, t := range open {
		lines = j.line(lines, t)
		put(maxLines)
	}
	for _, id := range ended {
		lines, _ = id.AppendText(append(lines, '-'))
		lines = append(lines, '\n')
		put(maxLines)
	}
	put(1)
	j.lines = lines
	return size, err
}

// line appends what the file is to be told of t, nothing if it has ended.
func (j *journal) line(b []byte, t *Tunnel) []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	t.changed = false
	switch {
	case t.place == none:
	case t.known && !t.amended:
		b, _ = t.Record.ID.AppendText(append(b, '='))
		b = strconv.AppendInt(append(b, ' '), t.Record.Up, 10)
		b = strconv.AppendInt(append(b, ' '), t.Record.Down, 10)
		b = append(b, '\n')
	default:
		t.known, t.amended = true, false
		r := &t.Record
		if j.log.anonymize != nil {
			anonymous := *r
			j.log.anonymize(&anonymous)
			r = &anonymous
		}
		b = recordEncoder.append(append(b, '+'), r)
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
	size, err := j.write(f, append(j.lines, journalHeader...), open, nil)
	if err != nil {
		return err
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
	j.file, j.room = f, journalSlack+3*size
	return nil
}

// close ends the journal. The file stays if a tunnel has no record, or good is false:
// records may not have reached the disk.
func (j *journal) close(good bool) {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	good = good && len(j.open)+len(j.young) == 0
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
