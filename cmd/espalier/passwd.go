package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"espalier/policy/auth"
	"espalier/web/signin"
)

func passwdCommand() *cobra.Command {
	var useBcrypt bool
	var role string
	cmd := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Print a line for a file of users",
		Long: `Prints "NAME:hash", a line for the file of auth.htpasswd, and with --role
"NAME:hash:ROLE", for that of web.users. The password is asked for on a terminal,
or is the first line of standard input.`,
		Example: `  espalier passwd alice >> users
  espalier passwd --role admin alice >> espalier-data/users`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// A wrong name is told before the question.
			if _, err := auth.Line(args[0], "x", useBcrypt); err != nil {
				return usage(err)
			}
			if role != "" {
				if _, err := signin.ParseRole(role); err != nil {
					return usage(fmt.Errorf("--role: %w", err))
				}
			}
			password, err := readPassword(cmd)
			if err != nil {
				return err
			}
			line, err := auth.Line(args[0], password, useBcrypt)
			if err != nil {
				return err
			}
			if role != "" {
				line += ":" + role
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), line)
			return err
		},
	}
	cmd.Flags().BoolVar(&useBcrypt, "bcrypt", false, "hash with bcrypt, for other programs, in place of argon2id")
	cmd.Flags().StringVar(&role, "role", "", "`ROLE` of a user of the console: viewer or admin")
	return cmd
}

// readPassword asks twice on a terminal, which does not show what is typed.
func readPassword(cmd *cobra.Command) (string, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4096)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	var typed [2]string
	for i, prompt := range []string{"Password: ", "Again: "} {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		b, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		typed[i] = string(b)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two passwords differ")
	}
	return typed[0], nil
}
