//go:build !linux

package wire

import "syscall"

const canSplice = false

func acked(syscall.RawConn) (uint64, bool) { return 0, false }
