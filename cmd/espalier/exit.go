package main

// Exit statuses, the same for every command.
const (
	exitNo    = 1 // a negative answer
	exitUsage = 2 // bad usage or configuration
)

// An exitError ends the process with code. Its err is printed; nil prints
// nothing, for answers that have been given on standard output.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// no is a negative answer, which has been given on standard output, if it holds.
func no(holds bool) error {
	if holds {
		return &exitError{code: exitNo}
	}
	return nil
}

// usage marks err as bad usage or configuration; nil stays nil.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitUsage, err}
}
