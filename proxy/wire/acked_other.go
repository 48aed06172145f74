//go:build !linux

package wire

import "net"

const canSplice = false

func acked(*net.TCPConn) uint64 { return 0 }

func queued(*net.TCPConn) int { return 0 }
