package main

import (
	"cmp"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/proxy/inspect"
)

// caCommand is `espalier ca`.
func caCommand(load configOf) *cobra.Command {
	return group("ca", "Make and show the CA for TLS interception",
		caInit(load), caRenew(load), caShow(load), caExport(load))
}

func caInit(load configOf) *cobra.Command {
	var o inspect.InitOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a CA that cannot speak for Apple",
		Long: `Makes the CA that signs certificates for intercepted hosts, in the directory
ca of "data". Its certificates exclude every host of the catalogue, Apple's
address blocks and apple.extra: devices refuse what it might sign for them.

With --offline-root the root's key is written to a directory of yours, to be
taken away, and an intermediate signs in its place for two years. "espalier ca
renew" makes the next one, and devices need nothing new; the root is valid for
ten years. Without, the root itself signs, and is valid for five, since its key
stays on this machine.`,
		Args: cobra.NoArgs,
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			rows, err := app.Excluded(cfg)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("days") && o.Days == 0 {
				return usage(errors.New("--days: 0 is no validity"))
			}
			if err := o.Validate(); err != nil {
				return usage(fmt.Errorf("--%w", err))
			}
			dir := app.CADir(cfg)
			if o.OfflineRoot != "" && within(o.OfflineRoot, cfg.Data) {
				return usage(fmt.Errorf("--offline-root: %s is inside %s; name a directory that you take away", o.OfflineRoot, cfg.Data))
			}
			o.Exclude = rows
			ca, moved, err := inspect.Init(dir, o)
			if err != nil {
				return err
			}
			return report.MadeCA(report.NewScreen(cmd.OutOrStdout()), ca, dir, o.OfflineRoot, moved)
		}),
	}
	cmd.Flags().StringVar(&o.OfflineRoot, "offline-root", "", "write the root's key to `DIR`, to be taken away")
	cmd.Flags().StringVar(&o.Organization, "org", "", "`NAME` of the organisation (default Espalier)")
	cmd.Flags().IntVar(&o.Days, "days", 0, "the root's validity in days, `N` (default 1825 or 3650)")
	cmd.Flags().BoolVar(&o.Force, "force", false, "move a CA that is there aside")
	return cmd
}

func caRenew(load configOf) *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:   "renew --root-key FILE",
		Short: "Make a new intermediate with the root's key",
		Args:  cobra.NoArgs,
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			rows, err := app.Excluded(cfg)
			if err != nil {
				return err
			}
			ca, moved, err := inspect.Renew(app.CADir(cfg), key, rows)
			if err != nil {
				return noCA(err)
			}
			return report.RenewedCA(report.NewScreen(cmd.OutOrStdout()), ca, moved)
		}),
	}
	cmd.Flags().StringVar(&key, "root-key", "", "the root.key `FILE` that ca init --offline-root has written")
	_ = cmd.MarkFlagRequired("root-key") // it exists
	return cmd
}

func caShow(load configOf) *cobra.Command {
	var asJSON bool
	return withJSON(&asJSON, &cobra.Command{
		Use:   "show",
		Short: "Show the CA, how long it is valid, and what it cannot speak for",
		Args:  cobra.NoArgs,
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			rows, err := app.Excluded(cfg)
			if err != nil {
				return err
			}
			ca, err := loadCA(cfg)
			if err != nil {
				return err
			}
			return report.Answer(cmd.OutOrStdout(), asJSON, report.NewCA(ca, rows, time.Now()), report.WriteCA)
		}),
	})
}

func caExport(load configOf) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the root certificate, which devices must trust",
		Args:  cobra.NoArgs,
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			if err := oneOf("format", format, []string{"pem", "der"}); err != nil {
				return err
			}
			ca, err := loadCA(cfg)
			if err != nil {
				return err
			}
			out := ca.Root().Raw
			if format == "pem" {
				out = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: out})
			}
			_, err = cmd.OutOrStdout().Write(out)
			return err
		}),
	}
	cmd.Flags().StringVar(&format, "format", "pem", "`FORMAT`: pem or der")
	return cmd
}

func loadCA(cfg *configs.Config) (*inspect.CA, error) {
	ca, err := inspect.LoadCA(app.CADir(cfg))
	return ca, noCA(err)
}

// noCA says what to do where there is no CA.
func noCA(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (`espalier ca init` makes a CA)", err)
	}
	return err
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	path, errPath := filepath.Abs(path)
	dir, errDir := filepath.Abs(dir)
	rel, err := filepath.Rel(dir, path)
	return cmp.Or(errPath, errDir, err) == nil && filepath.IsLocal(rel)
}
