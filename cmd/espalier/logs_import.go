package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"espalier/configs"
	"espalier/proxy/accesslog"
)

// logsImportCommand is `espalier logs import`.
func logsImportCommand(load configOf) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE...",
		Short: "Put the records of JSON files into the store",
		Long: `Puts the records of access logs in JSON, packed with gzip or not, into the
store. Records that it has are passed over, so that a file may be imported
again. So are those from before the time up to which it has removed records:
they are in its sums already.

The log's own files need no import: the store reads them by itself. Others may
be imported while espalier runs.`,
		Args: cobra.MinimumNArgs(1),
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, args []string) error {
			if cfg.Log.Store.Path == "" {
				return usage(errors.New("log.store.path: is empty, so there is no store"))
			}
			store, err := accesslog.OpenStore(cfg.Log.Store, cfg.Data, zap.NewNop())
			if err != nil {
				return err
			}
			defer store.Close()
			for _, path := range args {
				in, err := accesslog.OpenFile(path)
				if err != nil {
					return err
				}
				n, err := store.Import(cmd.Context(), in)
				in.Close()
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %d imported, %d known, %d too old, %d no records\n", path, n.Stored, n.Known, n.Old, n.Bad)
			}
			return nil
		}),
	}
}
