package accesslog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const childEnv = "ACCESSLOG_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		writeForEver(dir)
	}
	os.Exit(m.Run())
}

// writeForEver writes records whose IDs count from 1 and prints each ID once
// Write has returned.
func writeForEver(dir string) {
	l, err := Open(Config{File: "access.log", Format: "json"}, dir, "n", nop)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for id := ID(1); ; id++ {
		l.Write(&Record{Time: time.Now(), ID: id, Agent: strings.Repeat("x", int(id%300))})
		fmt.Println(uint64(id))
		time.Sleep(50 * time.Microsecond) // as fast as a busy proxy
	}
}

// readIDs returns the IDs of the records in files, and the number of lines that
// are none.
func readIDs(t *testing.T, files ...string) (ids []ID, bad int) {
	t.Helper()
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var r io.Reader = f
		if strings.HasSuffix(name, ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		n, err := Read(r, func(r *Record) error { ids = append(ids, r.ID); return nil })
		if err != nil {
			t.Fatal(err)
		}
		bad += n
	}
	return ids, bad
}

func TestKill(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "access.log")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Process.Kill()

	// Whatever had been written when the mark was made is in the file two flush
	// intervals later; the child goes on writing meanwhile, and is killed amid
	// that.
	lines := bufio.NewScanner(out)
	var mark, last ID
	var marked time.Time
	for lines.Scan() {
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			t.Fatal(lines.Text())
		}
		last = ID(n)
		if mark == 0 && last >= 1000 {
			mark, marked = last, time.Now()
		}
		if mark != 0 && time.Since(marked) > 2*flushInterval {
			child.Process.Signal(syscall.SIGKILL)
			break
		}
	}
	io.Copy(io.Discard, out)
	child.Wait()

	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	whole := raw[:bytes.LastIndexByte(raw, '\n')+1]
	var ids []ID
	bad, err := Read(bytes.NewReader(whole), func(r *Record) error { ids = append(ids, r.ID); return nil })
	if err != nil || bad != 0 {
		t.Fatalf("%d torn lines, %v", bad, err)
	}
	for i, id := range ids {
		if id != ID(i+1) {
			t.Fatalf("record %d is missing", i+1)
		}
	}
	if len(ids) < int(mark) {
		t.Errorf("%d records survived; %d were older than two flush intervals", len(ids), mark)
	}

	l, err := Open(Config{File: "access.log", Format: "json"}, dir, "n", nop)
	if err != nil {
		t.Fatal(err)
	}
	l.Write(&Record{ID: 1 << 40})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, bad := readIDs(t, file)
	if len(again) != len(ids)+1 || again[len(ids)] != 1<<40 || bad > 1 {
		t.Errorf("after the restart: %d records (%d before), %d torn lines", len(again), len(ids), bad)
	}
}

func TestTornLineIsEndedOnStart(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "access.log")
	line := newJSONEncoder("n").append(nil, &samples[0].rec)
	for _, c := range []struct {
		name, before, want string
		warnings           int
	}{
		{"clean", string(line), string(line) + string(line), 0},
		{"torn", string(line) + `{"time":"20`, string(line) + "{\"time\":\"20\n" + string(line), 1},
		{"empty", "", string(line), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
			core, ops := observer.New(zap.InfoLevel)
			l, err := Open(Config{File: "access.log", Format: "json", Rotate: 100e6, Keep: time.Hour}, dir, "n", zap.New(core))
			if err != nil {
				t.Fatal(err)
			}
			l.Write(&samples[0].rec)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(file)
			if err != nil || string(got) != c.want || ops.Len() != c.warnings {
				t.Errorf("%v\n got %s\nwant %s\n%v", err, got, c.want, ops.All())
			}
		})
	}
}

func TestRotation(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := filepath.Join(t.TempDir(), "data", "logs")
	l, err := Open(Config{File: "access.log", Format: "json", Rotate: 1e6, Keep: 24 * time.Hour}, dir, "n", nop)
	if err != nil {
		t.Fatal(err)
	}
	const records = 10_000
	for i := range records {
		l.Write(&Record{Time: time.Unix(1_700_000_000, 0), ID: ID(i)})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || info.Size() > 1e6 {
			t.Errorf("%s: %s, %d bytes", f, info.Mode(), info.Size())
		}
	}
	ids, bad := readIDs(t, files...)
	slices.Sort(ids)
	if len(ids) != records || ids[0] != 0 || ids[records-1] != records-1 || len(slices.Compact(ids)) != records || bad != 0 {
		t.Errorf("%d records in all files, %d bad lines", len(ids), bad)
	}
}

func TestDailyRotation(t *testing.T) {
	for _, c := range []struct {
		name string
		keep time.Duration
		want int // files
	}{
		{"with an age", 24 * time.Hour, 2},
		{"kept for ever", 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "access.log")
			f, err := openFile(file, Config{Keep: c.keep}, nop)
			if err != nil {
				t.Fatal(err)
			}
			r := f.(*rotating)
			now := time.Now()
			r.now = func() time.Time { return now }
			for range 2 { // once a day, not once a write
				io.WriteString(f, "yesterday\n")
			}
			now = now.Add(24 * time.Hour)
			for range 2 {
				io.WriteString(f, "today\n")
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			files, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*"))
			if len(files) != c.want {
				t.Errorf("%q", files)
			}
			got, _ := os.ReadFile(file)
			if want := strings.Repeat("yesterday\n", 2*(2-c.want)) + "today\ntoday\n"; string(got) != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

func TestNoRotationAmidALine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	f, err := openFile(file, Config{Rotate: 10}, nop)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"12345", "6789012", "3\n", "next\n"} {
		if _, err := io.WriteString(f, s); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if got, _ := os.ReadFile(file); string(got) != "next\n" {
		t.Errorf("the file was rotated amid a line: %q", got)
	}
}

// stuckFile is a file that cannot be rotated.
type stuckFile struct {
	capture
	tries int
}

func (f *stuckFile) RotateWithReason(string) error {
	f.tries++
	return errors.New("permission denied")
}

func TestRotationThatFailsLosesNothing(t *testing.T) {
	core, ops := observer.New(zap.InfoLevel)
	var out stuckFile
	now := time.Now()
	r := &rotating{out: &out, path: os.Args[0], limit: 10, log: zap.New(core), now: func() time.Time { return now }}
	for range 3 {
		if _, err := io.WriteString(r, "12345678\n"); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Count(out.String(), "\n") != 3 || out.tries != 1 || ops.Len() != 1 {
		t.Errorf("%q, tried %d times: %v", out.String(), out.tries, ops.All())
	}
	now = now.Add(2 * time.Minute)
	io.WriteString(r, "later\n")
	if out.tries != 2 {
		t.Errorf("tried %d times", out.tries)
	}
}

// Whoever removes the file, or the whole directory, loses what was in it, and
// nothing that comes later.
func TestRemovedFileIsBegunAnew(t *testing.T) {
	for _, c := range []struct {
		name   string
		remove func(file string) error
	}{
		{"file removed", os.Remove},
		{"file moved", func(file string) error { return os.Rename(file, file+".old") }},
		{"directory removed", func(file string) error { return os.RemoveAll(filepath.Dir(file)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer goleak.VerifyNone(t)
			file := filepath.Join(t.TempDir(), "data", "access.log")
			core, ops := observer.New(zap.InfoLevel)
			f, err := openFile(file, Config{Rotate: 1e6, Keep: time.Hour}, zap.New(core))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range []string{"before\n", "half a li"} {
				if _, err := io.WriteString(f, s); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.remove(file); err != nil {
				t.Fatal(err)
			}
			for _, s := range []string{"after\n", "and on\n"} {
				if _, err := io.WriteString(f, s); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(file)
			if err != nil || string(got) != "after\nand on\n" || ops.Len() != 1 {
				t.Errorf("%q, %v; %v", got, err, ops.All())
			}
			for path, mode := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
					t.Errorf("%s: %v, %v", path, info, err)
				}
			}
		})
	}
}

func TestOpenErrorNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(Config{File: ".", Format: "json"}, dir, "n", nop); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory as log file: %v", err)
	}
}

func TestDevice(t *testing.T) {
	l, err := Open(Config{File: "/dev/full", Format: "json", Rotate: 1e6, Keep: time.Hour}, t.TempDir(), "n", nop)
	if err != nil {
		t.Skip(err)
	}
	l.Write(&samples[0].rec)
	if err := l.Flush(); err == nil {
		t.Error("no error from a full device")
	}
	l.Close()
	if l.sinks[0].out.lost.Load() != 1 {
		t.Errorf("%d records lost", l.sinks[0].out.lost.Load())
	}
}
