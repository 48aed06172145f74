//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// procfs is where /proc is mounted; tests put a tree of fixtures there.
type procfs string

// usage is what a process and its living descendants hold and have spent.
type usage struct {
	cpu time.Duration // of all threads, living and ended, and of ended children
	pss int64         // bytes
	fds int
}

// procStat is what the bench needs of /proc/PID/stat.
type procStat struct {
	ppid     int
	own      time.Duration // user and system time, in ticks of 10 ms
	children time.Duration // of ended children that were waited for
}

// userHZ is the kernel's unit of time in /proc/PID/stat: 100 on every Linux.
const userHZ = 100

func (fs procfs) path(pid int, file string) string {
	return filepath.Join(string(fs), strconv.Itoa(pid), file)
}

func parseStat(b []byte) (procStat, error) {
	// The command stands in parentheses and may hold spaces and parentheses.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, errors.New("stat: no command")
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 15 {
		return procStat{}, fmt.Errorf("stat: %d fields behind the command", len(f))
	}
	// f[0] is field 3 of proc(5): ppid is 4, utime to cstime are 14 to 17.
	var n [5]int64
	for i, at := range []int{1, 11, 12, 13, 14} {
		v, err := strconv.ParseInt(f[at], 10, 64)
		if err != nil {
			return procStat{}, fmt.Errorf("stat: field %d: %w", at+3, err)
		}
		n[i] = v
	}
	tick := time.Second / userHZ
	return procStat{ppid: int(n[0]), own: time.Duration(n[1]+n[2]) * tick, children: time.Duration(n[3]+n[4]) * tick}, nil
}

func (fs procfs) stat(pid int) (procStat, error) {
	b, err := os.ReadFile(fs.path(pid, "stat"))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(b)
}

// tree lists pid and its living descendants, pid first.
func (fs procfs) tree(pid int) ([]int, error) {
	if _, err := fs.stat(pid); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(string(fs))
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, err := fs.stat(p); err == nil { // it may have ended meanwhile
			children[st.ppid] = append(children[st.ppid], p)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// processClock reads the CPU clock of a process: nanoseconds of all its
// threads, the ended ones included, which no file of /proc gives.
func processClock(pid int) (time.Duration, error) {
	const cpuclockSched = 2
	var ts syscall.Timespec
	clock := uint32(^int32(pid))<<3 | cpuclockSched
	if _, _, e := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
		return 0, e
	}
	return time.Duration(ts.Nano()), nil
}

// cpu is the CPU time of the process and its descendants. Only a fault of the
// process itself is an error; a descendant may end at any moment.
func (fs procfs) cpu(pid int) (time.Duration, error) {
	pids, err := fs.tree(pid)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, p := range pids {
		st, err := fs.stat(p)
		if err != nil {
			if p == pid {
				return 0, err
			}
			continue
		}
		own, err := processClock(p)
		if err != nil {
			own = st.own
		}
		sum += own + st.children
	}
	return sum, nil
}

// usage reads CPU, memory and descriptors of the process and its descendants.
func (fs procfs) usage(pid int) (usage, error) {
	cpu, err := fs.cpu(pid)
	if err != nil {
		return usage{}, err
	}
	pids, err := fs.tree(pid)
	if err != nil {
		return usage{}, err
	}
	u := usage{cpu: cpu}
	for _, p := range pids {
		pss, err1 := fs.pss(p)
		fds, err2 := fs.fds(p)
		if err := errors.Join(err1, err2); err != nil && p == pid {
			return usage{}, err
		}
		u.pss += pss
		u.fds += fds
	}
	return u, nil
}

func (fs procfs) fds(pid int) (int, error) {
	d, err := os.Open(fs.path(pid, "fd"))
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return len(names), err
}

// pss is the proportional set size in bytes.
func (fs procfs) pss(pid int) (int64, error) {
	return fs.kilobytes(fs.path(pid, "smaps_rollup"), "Pss")
}

// kilobytes reads "key:  n kB" out of a file and returns bytes.
func (fs procfs) kilobytes(file, key string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %s: %w", file, key, err)
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("%s: no %s", file, key)
}

// ticks reads from /proc/stat how much time all cores have had since boot, and
// how much of it the host of a virtual machine took, in ticks.
func (fs procfs) ticks() (all, stolen int64, err error) {
	b, err := os.ReadFile(filepath.Join(string(fs), "stat"))
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	// cpu user nice system idle iowait irq softirq steal; guest is in user.
	w := strings.Fields(line)
	if len(w) < 9 || w[0] != "cpu" {
		return 0, 0, fmt.Errorf("stat: unexpected %q", line)
	}
	for i, v := range w[1:9] {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("stat: %w", err)
		}
		all += n
		if i == 7 {
			stolen = n
		}
	}
	return all, stolen, nil
}

// slab is the kernel memory in bytes that sockets, pipes, epoll and threads are
// made of: the objects of their caches, and what is too large for a cache (the
// rings of large pipes). It is the whole machine's, so only differences mean
// something; the caches of file systems and of sockets in TIME_WAIT are left
// out because they move on their own. Without the right to read slabinfo it is
// all of the kernel's slab.
func (fs procfs) slab() (int64, error) {
	all, err := fs.kilobytes(filepath.Join(string(fs), "meminfo"), "Slab")
	if err != nil {
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(string(fs), "slabinfo"))
	if err != nil {
		return all, nil
	}
	counted, cached, err := parseSlabinfo(string(b), int64(os.Getpagesize()))
	return counted + all - cached, err
}

// parseSlabinfo sums the bytes of the living objects in the counted caches, and
// of the pages of every cache.
func parseSlabinfo(text string, page int64) (counted, cached int64, err error) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "slabinfo") {
			continue
		}
		// name active_objs num_objs objsize objperslab pagesperslab
		// : tunables … : slabdata active_slabs num_slabs sharedavail
		w := strings.Fields(line)
		if len(w) < 15 {
			return 0, 0, fmt.Errorf("slabinfo: %d words in %q", len(w), line)
		}
		var n [4]int64
		for i, at := range []int{1, 3, 5, 14} {
			if n[i], err = strconv.ParseInt(w[at], 10, 64); err != nil {
				return 0, 0, fmt.Errorf("slabinfo: %s: %w", w[0], err)
			}
		}
		cached += n[2] * n[3] * page
		if countedCache(w[0]) {
			counted += n[0] * n[1]
		}
	}
	return counted, cached, nil
}

func countedCache(name string) bool {
	switch name {
	case "TCP", "TCPv6", "sock_inode_cache", "inode_cache", "filp", "lsm_file_cache", "dentry",
		"eventpoll_epi", "eventpoll_pwq", "ep_head", "pipe_inode_info",
		"task_struct", "cred_jar", "pid", "vm_area_struct", "maple_node", "anon_vma", "anon_vma_chain":
		return true
	}
	return strings.HasPrefix(name, "kmalloc-") && !strings.HasPrefix(name, "kmalloc-rcl-") ||
		strings.HasPrefix(name, "skbuff_")
}
