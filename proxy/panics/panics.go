// Package panics makes errors of panics, in goroutines that serve one request.
package panics

import (
	"fmt"
	"runtime/debug"
)

// An Error is a fault of Espalier itself: a panic in a goroutine whose callers do not
// recover it.
type Error struct {
	Fault any
	Stack []byte
}

func (e *Error) Error() string { return fmt.Sprintf("panic: %v", e.Fault) }

// Keep, deferred, makes a panic the error of its function, an *Error.
func Keep(err *error) {
	if fault := recover(); fault != nil {
		*err = &Error{fault, debug.Stack()}
	}
}
