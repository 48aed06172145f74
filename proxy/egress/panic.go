package egress

import (
	"fmt"
	"runtime/debug"
)

// A PanicError is a mistake in Espalier, met in a goroutine where nobody above
// would have kept it to the request.
type PanicError struct {
	Fault any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Fault) }

// kept, deferred, makes a panic the error of its function.
func kept(err *error) {
	if fault := recover(); fault != nil {
		*err = &PanicError{fault, debug.Stack()}
	}
}
