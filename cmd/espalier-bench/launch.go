//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// A process is a proxy that the bench started, leader of its own process group.
type process struct {
	name string
	pid  int
	log  string        // the file its output goes to
	done chan struct{} // closed once it has ended
}

// launcher starts processes from one thread that lives as long as the bench:
// the kernel sends the death signal when the thread that forked ends.
var launcher = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go launchLoop(c)
	return c
})

func launchLoop(c <-chan func()) {
	runtime.LockOSThread()
	for f := range c {
		f()
	}
}

// outputLog is where below its directory a process prints to.
const outputLog = "output.log"

// launch starts a program with a limit of descriptors, as another user where
// one is named, in dir, with an environment that names no proxy.
func launch(name, dir, as string, nofile int, argv ...string) (*process, error) {
	log := filepath.Join(dir, outputLog)
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", `ulimit -n "$1" && shift && exec "$@"`, "sh", strconv.Itoa(nofile)}, argv...)...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "TMPDIR=" + dir, "LANG=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if as != "" && os.Geteuid() == 0 {
		cred, err := credential(as)
		if err != nil {
			return nil, err
		}
		cmd.SysProcAttr.Credential = cred
		if err := chownAll(dir, cred); err != nil {
			return nil, err
		}
	}
	started := make(chan error)
	launcher() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &process{name: name, pid: cmd.Process.Pid, log: log, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		cmd.Wait() // how it ended is told by its log
	}()
	return p, nil
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

func chownAll(dir string, c *syscall.Credential) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(c.Uid), int(c.Gid))
	})
}

// ready waits until the process accepts connections at addr.
func (p *process) ready(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		c, err := net.DialTimeout("tcp4", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it listened:\n%s", p.name, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen on %s:\n%s", p.name, addr, p.tail())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// tail is the end of what the process printed.
func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "\t" + strings.Join(lines[max(0, len(lines)-8):], "\n\t")
}

// stop kills the process and what it started, and waits until it is gone.
func (p *process) stop() {
	syscall.Kill(-p.pid, syscall.SIGKILL)
	<-p.done
}

// keepAwake gives every core a loop to run when nothing else wants it, so that
// it does not halt: in a virtual machine waking a halted core costs more than
// a whole round trip, and chance decides who pays. The loops yield to anything
// at once. It returns how to end them.
func keepAwake(dir string, cores int) (stop func(), err error) {
	var loops []*process
	stop = func() {
		for _, p := range loops {
			p.stop()
		}
	}
	for range cores {
		p, err := launch("loop", dir, "", 64, "/bin/sh", "-c", "while :; do :; done")
		if err != nil {
			stop()
			return nil, err
		}
		loops = append(loops, p)
		const schedIdle = 5
		var param struct{ priority int32 }
		if _, _, e := syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, uintptr(p.pid), schedIdle, uintptr(unsafe.Pointer(&param))); e != 0 {
			stop()
			return nil, fmt.Errorf("sched_setscheduler: %w", e)
		}
	}
	return stop, nil
}

// freeAddrs finds n loopback addresses that nobody listens on.
func freeAddrs(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close() // only at the end, or the same could come again
		addrs[i] = ln.Addr().String()
	}
	return addrs, nil
}

// raiseFiles raises the bench's own limit of descriptors as far as it may and
// returns it.
func raiseFiles() (int, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	r.Cur = r.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	return int(min(r.Cur, 1<<30)), nil
}
