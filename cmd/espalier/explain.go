package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/pac"
	"espalier/policy"
	"espalier/web/explain"
)

func explainCommand() *cobra.Command {
	var client, user string
	var groups []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain URL|HOST:PORT...",
		Short: "Say what happens to a destination, and why",
		Example: `  espalier explain https://gs.apple.com/
  espalier explain --client 10.1.2.3 --user alice example.com:443`,
		Long: `Say what happens to a destination, and why.

Every destination is explained; the exit status is 2 if one of them is invalid.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(groups) > 0 && user == "" {
				return usage(errors.New("--group: needs --user"))
			}
			cfg, err := loadedConfig(cmd)
			if err != nil {
				return err
			}
			q := explain.Question{User: user, Groups: groups}
			if client != "" {
				if q.Client, err = netip.ParseAddr(client); err != nil {
					return usage(fmt.Errorf("--client: %q is no address", client))
				}
			}
			e, err := app.NewExplainer(cfg)
			if err != nil {
				return err
			}
			s := newScreen(cmd.OutOrStdout())
			lines := json.NewEncoder(cmd.OutOrStdout())
			lines.SetEscapeHTML(false)
			var bad []error
			explained := 0
			for _, arg := range args {
				q.Target = arg
				x, err := e.Explain(q)
				if err != nil {
					bad = append(bad, fmt.Errorf("%s: %w", arg, err))
					continue
				}
				explained++
				if asJSON {
					if err := lines.Encode(x); err != nil {
						return err
					}
					continue
				}
				if explained > 1 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if err := writeExplanation(s, x); err != nil {
					return err
				}
			}
			return usage(errors.Join(bad...))
		},
	}
	cmd.Flags().StringVar(&client, "client", "", "the client's `ADDRESS`; without it one that is allowed")
	cmd.Flags().StringVar(&user, "user", "", "`USER` who has signed in")
	cmd.Flags().StringArrayVar(&groups, "group", nil, "`GROUP` of that user, beside auth.groups; repeatable")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, a line for each destination")
	return cmd
}

// pacSource says what gives a PAC answer, unless it is one of the four usual routes.
func pacSource(x *explain.Explanation) string {
	switch class := pac.Class(x.PACClass); class {
	case pac.Local:
		return " (local: " + x.Local + ")"
	case pac.Internal:
		return " (pac.internal)"
	case pac.Default, pac.Apple, pac.AppleUnmarked:
		return ""
	default:
		return " (pac.routes." + string(class) + ")"
	}
}

func writeExplanation(s screen, x *explain.Explanation) error {
	service := x.Service
	if len(x.Also) > 0 {
		service += " (also " + strings.Join(x.Also, ", ") + ")"
	}
	as := green
	if x.Action == string(policy.Deny) || x.Action == string(policy.Challenge) {
		as = red
	}
	var b strings.Builder
	b.WriteString(s.paint(bold, x.Target) + "\n")
	const indent = 13
	line := func(label string, as style, text string) {
		for _, part := range s.broken(text, indent) {
			fmt.Fprintf(&b, "  %s %s\n", s.paint(dim, fmt.Sprintf("%-*s", indent-3, label)), s.paint(as, part))
			label = ""
		}
	}
	line("action", as, x.Action)
	line("rule", plain, x.Rule)
	line("why", plain, x.Why)
	line("service", plain, service)
	if x.Dial != "" {
		line("dial", plain, "the address of "+x.Dial)
	}
	if len(x.Headers) > 0 {
		line("sets", plain, strings.Join(x.Headers, ", "))
	}
	if x.PACUnknown != "" {
		line("PAC", yellow, "not known: "+x.PACUnknown)
	} else {
		line("PAC", plain, x.PAC+pacSource(x))
	}
	for i, r := range x.Rows {
		text := r.Host + " " + strings.Join(r.Transports, ",")
		if len(r.Ports) > 0 {
			text += " " + joined(r.Ports, ",")
		}
		text += ", " + r.Section
		if r.Purpose != "" {
			text += ": " + r.Purpose
		}
		if r.Until != "" {
			text += " (retired " + r.Until + ")"
		}
		line(first(i, "catalogue"), plain, text)
	}
	if len(x.NotLoaded) > 0 {
		line("lists", yellow, "not to be had here, so that they match nothing: "+strings.Join(x.NotLoaded, ", "))
	}
	if x.Note != "" {
		line("note", yellow, x.Note)
	}
	_, err := io.WriteString(s, b.String())
	return err
}
