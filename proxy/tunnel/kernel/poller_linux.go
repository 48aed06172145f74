package kernel

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Poller is an epoll set that itself is in Go's poller: a goroutine waits for its events
// without a thread. Wake may be called from any goroutine, the rest by one at a time.
type Poller struct {
	epoll int
	wake  int             // an eventfd
	file  *os.File        // of epoll, in Go's poller
	raw   syscall.RawConn // of file
}

// NewPoller makes a Poller; Wake raises an event whose Fd is wakeEvent.
func NewPoller(wakeEvent int32) (p *Poller, err error) {
	p = &Poller{epoll: -1, wake: -1}
	defer func() {
		if err != nil {
			p.Close()
			p, err = nil, fmt.Errorf("epoll: %w", err)
		}
	}()
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return
	}
	if err = p.Add(int32(p.wake), unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeEvent}); err == nil {
		err = unix.SetNonblock(p.epoll, true) // makes os.NewFile use Go's poller
	}
	if err == nil {
		p.file = os.NewFile(uintptr(p.epoll), "epoll")
		p.raw, err = p.file.SyscallConn()
	}
	return
}

// Close closes the descriptors of p.
func (p *Poller) Close() {
	if p.file != nil {
		p.file.Close()
	} else if p.epoll >= 0 {
		unix.Close(p.epoll)
	}
	if p.wake >= 0 {
		unix.Close(p.wake)
	}
}

// Run calls turn now, and whenever there may be events, until it returns true. turn gets
// the descriptor for Wait.
func (p *Poller) Run(turn func(epoll uintptr) (done bool)) error {
	// The goroutine lives inside Read, which calls turn again whenever the epoll
	// descriptor has news. Read looks for news itself before it calls the first
	// time only, so an event costs one epoll_wait and not a second that finds
	// nothing.
	return p.raw.Read(turn)
}

// Wait returns the number of events that there are, and puts them into events. It does
// not wait for any.
func Wait(epoll uintptr, events []unix.EpollEvent) (int, error) {
	return call(unix.SYS_EPOLL_PWAIT, epoll, unsafe.Pointer(unsafe.SliceData(events)), uintptr(len(events)), 0, 0, 0)
}

// Wake raises the event of NewPoller until Woken.
func (p *Poller) Wake() {
	one := [8]byte{1}
	_, _ = unix.Write(p.wake, one[:]) // cannot fail while it is open: the counter is far from full
}

// Woken takes back what Wake has raised.
func (p *Poller) Woken() {
	var b [8]byte
	_, _ = Read(int32(p.wake), b[:])
}

// Add watches a descriptor. Its events have Fd and Pad of e.
func (p *Poller) Add(fd int32, e unix.EpollEvent) error {
	return unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, int(fd), &e)
}

// Modify changes what a descriptor is watched for.
func (p *Poller) Modify(fd int32, e unix.EpollEvent) error {
	return unix.EpollCtl(p.epoll, unix.EPOLL_CTL_MOD, int(fd), &e)
}

// Remove watches a descriptor no more. One that is not watched does no harm.
func (p *Poller) Remove(fd int32) { _ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, int(fd), nil) }
