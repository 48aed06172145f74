package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/web/signin"
)

// tokenCommand is `espalier token`.
func tokenCommand(dataDir dataDirOf) *cobra.Command {
	return group("token", "Make, list and revoke the API tokens of scripts",
		tokenCreate(dataDir), tokenList(dataDir), tokenRevoke(dataDir))
}

func tokenCreate(dataDir dataDirOf) *cobra.Command {
	var name, role, expires string
	cmd := &cobra.Command{
		Use:   "create --name NAME",
		Short: "Print a new token",
		Long: `Prints a new token, which is not kept and cannot be shown again. A script sends
it to the console's address as "Authorization: Bearer TOKEN". A running espalier
takes it at once.`,
		Example: `  espalier token create --name prometheus
  espalier token create --name deploy --role admin --expires 90d`,
		Args: cobra.NoArgs,
		RunE: with(dataDir, func(cmd *cobra.Command, dir string, _ []string) error {
			r, err := signin.ParseRole(role)
			if err != nil {
				return usage(fmt.Errorf("--role: %w", err))
			}
			var lifetime time.Duration
			if expires != "" {
				if lifetime, err = configs.ParseDuration(expires); err == nil && lifetime <= 0 {
					err = errors.New("must be in the future")
				}
				if err != nil {
					return usage(fmt.Errorf("--expires: %w", err))
				}
			}
			token, err := signin.CreateToken(dir, name, r, lifetime)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "`NAME` to know it by")
	cmd.Flags().StringVar(&role, "role", string(signin.Viewer), "`ROLE`: viewer, or admin for changes")
	cmd.Flags().StringVar(&expires, "expires", "", "the `TIME` it is good for, such as 90d; without, for ever")
	_ = cmd.MarkFlagRequired("name") // it exists
	return cmd
}

func tokenList(dataDir dataDirOf) *cobra.Command {
	var asJSON bool
	return withJSON(&asJSON, &cobra.Command{
		Use:   "list",
		Short: "List the tokens, without what would let anybody use them",
		Args:  cobra.NoArgs,
		RunE: with(dataDir, func(cmd *cobra.Command, dir string, _ []string) error {
			tokens, err := signin.ReadTokens(dir)
			if err != nil {
				return err
			}
			return report.Answer(cmd.OutOrStdout(), asJSON, report.NewTokens(tokens), report.WriteTokens)
		}),
	})
}

func tokenRevoke(dataDir dataDirOf) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "End a token at once",
		Args:  cobra.ExactArgs(1),
		RunE: with(dataDir, func(cmd *cobra.Command, dir string, args []string) error {
			if err := signin.RevokeToken(dir, args[0]); err != nil {
				return fmt.Errorf("%q: %w", args[0], err)
			}
			return nil
		}),
	}
}
