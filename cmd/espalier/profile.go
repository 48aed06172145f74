package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"espalier/configs"
	"espalier/proxy/inspect"
	"espalier/web/profile"
)

// profileCommand is `espalier profile`.
func profileCommand(load configOf) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Make a .mobileconfig profile for devices",
		Long: `Writes a configuration profile to standard output, for an MDM server or Apple
Configurator. It is signed where web.profile.cert is set. A device replaces the
profile that it has from an earlier run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		profileKind(load, profile.KindGlobalProxy, "The PAC script in every network, for supervised devices"),
		profileKind(load, profile.KindWiFi, "A wireless network with the PAC script"),
		profileKind(load, profile.KindCA, "The root certificate of TLS interception"),
		profileKind(load, profile.KindBundle, "The root certificate, where there is one, and the PAC script"),
	)
	return cmd
}

func profileKind(load configOf, kind, short string) *cobra.Command {
	var r profile.Request
	var w profile.WiFi
	var passwordFile string
	r.Kind = kind
	cmd := &cobra.Command{
		Use:   kind,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			issuer, err := profile.NewIssuer(cfg.Web.Profile)
			if err != nil {
				return usage(fmt.Errorf("web.profile.%w", err))
			}
			if r.Root, err = rootOf(cfg); err != nil {
				return err
			}
			if kind != profile.KindCA {
				if err := pacURLOf(cfg, &r); err != nil {
					return usage(err)
				}
			}
			if w.SSID != "" {
				if w.Password, err = passwordOf(cmd, passwordFile, w); err != nil {
					return err
				}
				r.WiFi = &w
			}
			data, err := issuer.Make(r)
			if errors.Is(err, profile.ErrNoRoot) {
				return err
			}
			if err != nil {
				return usage(fmt.Errorf("--%w", err))
			}
			if f, ok := cmd.OutOrStdout().(*os.File); issuer.Signs() && ok && term.IsTerminal(int(f.Fd())) {
				return usage(errors.New("a signed profile is binary: write it to a file, with > NAME.mobileconfig"))
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.Locked, "locked", false, "people cannot remove it from supervised devices")
	if kind == profile.KindCA {
		return cmd
	}
	f.StringVar(&r.Site, "site", "", "the script of the site `NAME`")
	f.StringVar(&r.PACURL, "pac-url", "", "the script at `URL` (default: this machine's)")
	f.BoolVar(&r.Proxy.Fallback, "fallback", false, "devices connect directly where the script is not to be had")
	if kind != profile.KindWiFi {
		f.BoolVar(&r.Proxy.CaptiveLogin, "captive-login", true, "devices pass the proxy by to sign in to a network")
	}
	if kind != profile.KindGlobalProxy {
		f.StringVar(&w.SSID, "ssid", "", "the wireless network's `NAME`")
		f.StringVar(&w.Encryption, "encryption", "WPA2", "None, Any, WEP, WPA, WPA2 or WPA3")
		f.StringVar(&passwordFile, "password-file", "", "`FILE` with its password; - or none: standard input")
		f.BoolVar(&w.Hidden, "hidden", false, "the network does not tell its name")
	}
	if kind == profile.KindWiFi {
		_ = cmd.MarkFlagRequired("ssid") // it exists
	}
	return cmd
}

// rootOf is the root of the interception CA, nil where there is none.
func rootOf(cfg *configs.Config) (*x509.Certificate, error) {
	ca, err := inspect.LoadCA(caDir(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ca.Root(), nil
}

// pacURLOf completes r.PACURL.
func pacURLOf(cfg *configs.Config, r *profile.Request) error {
	compiled, err := compilePAC(cfg)
	if err != nil {
		return err
	}
	if err := checkSite(compiled, r.Site); err != nil {
		return err
	}
	if r.PACURL != "" {
		return nil
	}
	base, err := publicURL(cfg.Web, listenAddrs(cfg.Web.Public))
	if err != nil {
		return fmt.Errorf("%w; name the script with --pac-url", err)
	}
	r.PACURL = base + compiled.Path(r.Site)
	return nil
}

// passwordOf reads a wireless network's password, which must not stand on the
// command line, where others can see it.
func passwordOf(cmd *cobra.Command, file string, w profile.WiFi) (string, error) {
	if w.Encryption == "None" || w.Encryption == "Any" && file == "" {
		return "", nil
	}
	if file == "" || file == "-" {
		return readPassword(cmd)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", usage(fmt.Errorf("--password-file: %w", err))
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimRight(line, "\r"), nil
}
