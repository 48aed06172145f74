package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand is `espalier man`, which packaging calls. SOURCE_DATE_EPOCH is the
// date that stands in the pages.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "espalier " + programVersion(), Manual: "Espalier"}
			return doc.GenManTree(root, header, args[0])
		},
	}
}
