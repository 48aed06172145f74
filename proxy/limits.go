package proxy

import "syscall"

// descriptorReserve is kept back for logs, listeners, look-ups and plain HTTP.
const descriptorReserve = 256

// defaultMaxTunnels is how many tunnels the limit of file descriptors allows, at
// two for each. The Go runtime has raised the soft limit to the hard one.
func defaultMaxTunnels() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil || l.Cur > 1<<31 {
		return 1 << 30
	}
	reserve := min(uint64(descriptorReserve), l.Cur/4)
	return int((l.Cur - reserve) / 2)
}
