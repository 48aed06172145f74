package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"espalier/policy"
	"espalier/proxy/inspect"
	"espalier/web"
	"espalier/web/api"
)

// inspectCommand is `espalier inspect`.
func inspectCommand(dataDir dataDirOf) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "See to TLS interception in a running espalier",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	exceptions := listExceptions(dataDir)
	exceptions.Use = "exceptions"
	exceptions.Short = "List and judge hosts whose clients refuse interception"
	exceptions.Long = `Lists and judges hosts whose clients refuse interception.

Apps that know their server's certificate do not take the CA's. A host that a
client has refused twice is tunnelled for that client, for inspect.pinned.for;
and for everybody once several clients that take the CA's certificates elsewhere
have done so. Without a command below it, this lists them.`
	exceptions.AddCommand(
		listExceptions(dataDir),
		changeException(dataDir, api.AcceptException, "Tunnel a host for good, for everybody", "%s is tunnelled from now on"),
		changeException(dataDir, api.RefuseException, "Never exempt a host, whatever its clients do", "%s is intercepted from now on, whatever its clients do"),
		changeException(dataDir, api.ForgetException, "Forget what is known of a host", "%s is as if it had never been refused"),
	)
	cmd.AddCommand(exceptions)
	return cmd
}

func listExceptions(dataDir dataDirOf) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the hosts, the last refused first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd, dataDir, asJSON, func(ctx context.Context, c *web.ControlClient) ([]inspect.Exception, error) {
				return c.Exceptions(ctx)
			}, writeExceptions)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func writeExceptions(s screen, list []inspect.Exception) error {
	if len(list) == 0 {
		return s.paragraphs([]string{"No client has refused interception, and no administrator has said anything."})
	}
	t := table{head: []string{"HOST", "STATE", "TUNNELLED FOR", "UNTIL", "REFUSALS", "REASON"}, right: []int{4}}
	for _, x := range list {
		who, until, as := "everybody", "", yellow
		switch {
		case x.State == inspect.Refused:
			who, as = "nobody", plain
		case x.Everybody:
		case len(x.Clients) == 1:
			who = x.Clients[0].Client.String()
		default:
			who = fmt.Sprintf("%d clients", len(x.Clients))
		}
		if !x.Until.IsZero() {
			until = local(x.Until)
		}
		if x.State == inspect.Accepted {
			as = green
		}
		t.add(cell{x.Host, plain}, cell{x.State, as}, cell{who, plain}, cell{until, plain}, cell{strconv.Itoa(x.Refusals), plain}, cell{x.Reason, plain})
	}
	return t.write(s)
}

func changeException(dataDir dataDirOf, do, short, done string) *cobra.Command {
	return &cobra.Command{
		Use:   do + " HOST",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, _, err := policy.ParseHost(args[0])
			if err != nil {
				return usage(fmt.Errorf("%s: %w", args[0], err))
			}
			return control(cmd, dataDir, func(ctx context.Context, c *web.ControlClient) error {
				if err := c.ChangeException(ctx, do, host); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), done+"\n", host)
				return err
			})
		},
	}
}
