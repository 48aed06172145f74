package app

import (
	"context"
	"errors"
	"slices"
	"time"

	"espalier/configs"
)

// Check compiles a configuration as a running process would, and returns what is valid and
// hardly wanted, each with its place. notes say what lists hold, and why recent records were
// not checked, if they were not.
func Check(ctx context.Context, l *configs.Loaded) (warnings configs.Problems, notes []string, err error) {
	made, err := compileAlone(l.Config, nil)
	if err = errors.Join(err, needCA(l.Config)); err != nil {
		return nil, nil, err
	}
	ports, note := portWarnings(ctx, l.Config, made, time.Now())
	status := made.lists.Status()
	warnings = slices.Clone(l.Warnings)
	for _, text := range slices.Concat(listWarnings(l.Config, status), ports) {
		warnings = append(warnings, l.Problem(text))
	}
	if notes = listNotes(l.Config, status); note != "" {
		notes = append(notes, note)
	}
	return warnings, notes, nil
}
