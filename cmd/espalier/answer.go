package main

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"
)

// writeAnswer writes what a command found out: as JSON, or by write for people.
func writeAnswer[T any](cmd *cobra.Command, asJSON bool, v T, write func(screen, T) error) error {
	if asJSON {
		return writeJSON(cmd.OutOrStdout(), v)
	}
	return write(newScreen(cmd.OutOrStdout()), v)
}

// writeJSON writes v indented, with &, < and > as they are: no page holds it.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
