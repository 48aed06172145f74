package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"espalier/cmd/espalier/app"
	"espalier/configs"
	"espalier/web/profile"
)

// profileCommand is `espalier profile`.
func profileCommand(load configOf) *cobra.Command {
	cmd := group("profile", "Make a .mobileconfig profile for devices")
	cmd.Long = `Writes a configuration profile to standard output, for an MDM server or Apple
Configurator. It is signed if web.profile.cert is set. A device replaces the
profile that it has from an earlier run with the same kind, site and network.`
	for _, k := range []struct{ kind, short, long string }{
		{profile.KindGlobalProxy, "The PAC script in every network, for supervised devices and Macs",
			"iPhone, iPad, Apple TV and Apple Vision need supervision; a Mac does not."},
		{profile.KindWiFi, "A wireless network with the PAC script",
			"The network has a password, none, or 802.1X: --eap says how devices sign in then."},
		{profile.KindNetworkProxy, "The PAC script on a Mac, as a network setting",
			"For Macs on which a global proxy is not wanted. No supervision is needed."},
		{profile.KindCA, "The root certificate of TLS interception", ""},
		{profile.KindDNS, "A name server by HTTPS or TLS",
			"Installed by MDM, iPhone and iPad use it in managed Wi-Fi networks only. Profiles\nof different --dns-domain are installed beside each other."},
		{profile.KindRestrictions, "iCloud Private Relay off, for supervised devices and Macs",
			"iPhone, iPad and Apple Vision need supervision; a Mac does not."},
		{profile.KindBundle, "The root certificate, if there is one, and the PAC script",
			"With --ssid the script is for that network. --dns-server and --no-private-relay add\nwhat the profiles of those kinds hold."},
	} {
		cmd.AddCommand(profileKind(load, k.kind, k.short, k.long))
	}
	return cmd
}

// profileFlags are what the flags of a kind hold.
type profileFlags struct {
	r                     profile.Request
	wifi                  profile.WiFi
	eap                   profile.EAP
	dns                   profile.DNS
	removeOn, removeAfter string
	passwordFile          string
	roots                 []string // files
	identityFile          string
	identityPassword      string // its file
}

func profileKind(load configOf, kind, short, long string) *cobra.Command {
	x := profileFlags{r: profile.Request{Kind: kind}}
	cmd := &cobra.Command{
		Use:   kind,
		Short: short,
		Long:  strings.TrimSpace(short + ".\n\n" + long),
		Args:  cobra.NoArgs,
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			issuer, err := profile.NewIssuer(cfg.Web.Profile)
			if err != nil {
				return usage(fmt.Errorf("web.profile.%w", err))
			}
			if x.r.Root, err = app.Root(cfg); err != nil {
				return err
			}
			if profile.Scripted(kind) {
				if x.r.PACURL, err = app.ScriptURL(cfg, x.r.Site, x.r.PACURL); err != nil {
					return usage(err)
				}
			}
			if err := x.read(cmd); err != nil {
				return err
			}
			data, err := issuer.Make(x.r)
			if e, ok := errors.AsType[*profile.RequestError](err); ok {
				return usage(flagError(e))
			}
			if err != nil {
				return err
			}
			if f, ok := cmd.OutOrStdout().(*os.File); issuer.Signs() && ok && term.IsTerminal(int(f.Fd())) {
				return usage(errors.New("a signed profile is binary: write it to a file, with > NAME.mobileconfig"))
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		}),
	}
	x.declare(cmd, kind)
	return cmd
}

// declare adds the flags of a kind.
func (x *profileFlags) declare(cmd *cobra.Command, kind string) {
	f := cmd.Flags()
	f.BoolVar(&x.r.Locked, "locked", false, "people cannot remove it (supervised devices; Macs if installed by hand)")
	f.StringVar(&x.removeOn, "remove-on", "", "devices remove it at `TIME` (2027-06-30, or 2027-06-30T16:00:00+02:00)")
	f.StringVar(&x.removeAfter, "remove-after", "", "devices remove it this `DURATION` after its installation (12h, 30d)")
	if kind == profile.KindCA {
		f.BoolVar(&x.r.Beside, "beside", false, "devices keep the root of an earlier profile, while you replace the CA")
	}
	bundle := kind == profile.KindBundle
	if profile.Scripted(kind) {
		f.StringVar(&x.r.Site, "site", "", "the script of the site `NAME`")
		f.StringVar(&x.r.PACURL, "pac-url", "", "the script at `URL` (default: this machine's)")
		f.BoolVar(&x.r.Proxy.Fallback, "fallback", false, "devices connect directly while the script cannot be fetched")
		if kind != profile.KindWiFi {
			f.BoolVar(&x.r.Proxy.CaptiveLogin, "captive-login", true, "devices bypass the proxy to sign in to a network")
		}
	}
	if kind == profile.KindWiFi || bundle {
		f.StringVar(&x.wifi.SSID, "ssid", "", "the wireless network's `NAME`")
		f.StringVar(&x.wifi.Encryption, "encryption", "WPA2", "`TYPE`: "+strings.Join(profile.Encryptions, ", "))
		f.StringVar(&x.passwordFile, "password-file", "", "`FILE` with the password of the network, or of --eap-user; - is standard input (default, without --eap)")
		f.BoolVar(&x.wifi.Hidden, "hidden", false, "the network does not broadcast its name")
		f.BoolVar(&x.wifi.FixedMAC, "disable-mac-randomization", false, "devices join with their hardware address")
		f.StringSliceVar(&x.eap.Methods, "eap", nil, "802.1X by `METHOD`: "+strings.Join(profile.EAPMethods, ", ")+"; several with commas")
		f.StringVar(&x.eap.UserName, "eap-user", "", "`NAME` for ttls and peap (default: the device asks)")
		f.StringVar(&x.eap.OuterIdentity, "eap-outer-identity", "", "`NAME` that ttls and peap send unencrypted")
		f.StringVar(&x.eap.Inner, "eap-inner", "", "`METHOD` within ttls: "+strings.Join(profile.InnerMethods, ", ")+" (default: MSCHAPv2)")
		f.StringSliceVar(&x.eap.ServerNames, "eap-server-name", nil, "`NAME` in the certificates of the RADIUS servers; repeatable")
		f.StringArrayVar(&x.roots, "eap-root", nil, "`FILE` with the root certificate of the RADIUS servers, PEM or DER; repeatable")
		f.StringVar(&x.identityFile, "identity", "", "`FILE` with the device's certificate and key for tls, PKCS #12")
		f.StringVar(&x.identityPassword, "identity-password-file", "", "`FILE` with its password (default: the device asks)")
	}
	if kind == profile.KindWiFi {
		_ = cmd.MarkFlagRequired("ssid") // it exists
	}
	if kind == profile.KindDNS || bundle {
		f.StringVar(&x.dns.Server, "dns-server", "", "`URL` of the name server: https://NAME/dns-query or tls://NAME")
		f.StringSliceVar(&x.dns.Addresses, "dns-address", nil, "its `ADDRESS`; repeatable (default: devices look its name up)")
		f.StringSliceVar(&x.dns.Domains, "dns-domain", nil, "ask it for names in `DOMAIN` only; repeatable")
		f.BoolVar(&x.dns.Locked, "dns-locked", false, "people cannot switch it off (supervised devices)")
	}
	if kind == profile.KindDNS {
		_ = cmd.MarkFlagRequired("dns-server")
	}
	if bundle {
		f.BoolVar(&x.r.NoPrivateRelay, "no-private-relay", false, "switch iCloud Private Relay off (supervised devices and Macs)")
	}
}

// read completes x.r by the flags and the files that they name.
func (x *profileFlags) read(cmd *cobra.Command) (err error) {
	if x.removeOn != "" {
		if x.r.RemoveOn, err = profile.ParseTime(x.removeOn); err != nil {
			return usage(fmt.Errorf("--remove-on: %w", err))
		}
	}
	if x.removeAfter != "" {
		if x.r.RemoveAfter, err = configs.ParseDuration(x.removeAfter); err != nil {
			return usage(fmt.Errorf("--remove-after: %w", err))
		}
		if x.r.RemoveAfter == 0 {
			return usage(errors.New("--remove-after: must be 1s or more"))
		}
	}
	given := cmd.Flags().Changed
	for _, d := range dependent {
		if i := slices.IndexFunc(d.flags, given); i >= 0 && !given(d.on) {
			return usage(fmt.Errorf("--%s: needs --%s", d.flags[i], d.on))
		}
	}
	if given("dns-server") {
		x.r.DNS = &x.dns
	}
	if !given("ssid") {
		return nil
	}
	x.r.WiFi = &x.wifi
	if !given("eap") {
		if file := cmp.Or(x.passwordFile, "-"); x.passwordFile != "" || x.wifi.Encryption != "None" && x.wifi.Encryption != "Any" {
			x.wifi.Password, err = passwordIn(cmd, "password-file", file)
		}
		return err
	}
	x.wifi.EAP = &x.eap
	return x.readEAP(cmd)
}

// dependent are the flags that say nothing without another.
var dependent = []struct {
	on    string
	flags []string
}{
	{"ssid", []string{"encryption", "password-file", "hidden", "disable-mac-randomization", "eap", "eap-user", "eap-outer-identity",
		"eap-inner", "eap-server-name", "eap-root", "identity", "identity-password-file"}},
	{"eap", []string{"eap-user", "eap-outer-identity", "eap-inner", "eap-server-name", "eap-root", "identity", "identity-password-file"}},
	{"dns-server", []string{"dns-address", "dns-domain", "dns-locked"}},
}

func (x *profileFlags) readEAP(cmd *cobra.Command) (err error) {
	if x.passwordFile != "" {
		if x.eap.Password, err = passwordIn(cmd, "password-file", x.passwordFile); err != nil {
			return err
		}
	}
	if x.identityPassword != "" {
		if x.eap.IdentityPassword, err = passwordIn(cmd, "identity-password-file", x.identityPassword); err != nil {
			return err
		}
	}
	if x.identityFile != "" {
		if x.eap.Identity, err = os.ReadFile(x.identityFile); err != nil {
			return usage(fmt.Errorf("--identity: %w", err))
		}
	}
	for _, file := range x.roots {
		data, err := os.ReadFile(file)
		if err != nil {
			return usage(fmt.Errorf("--eap-root: %w", err))
		}
		list, err := profile.ParseCertificates(data)
		if err != nil {
			return usage(fmt.Errorf("--eap-root: %s: %w", file, err))
		}
		x.eap.Roots = append(x.eap.Roots, list...)
	}
	return nil
}

// flagError puts the flag's name before an error that begins with a field's.
func flagError(err error) error {
	field, _, _ := strings.Cut(err.Error(), ":")
	if field == "password" || field == "identity-password" { // never on the command line
		return fmt.Errorf("--%s-file%s", field, strings.TrimPrefix(err.Error(), field))
	}
	return fmt.Errorf("--%w", err)
}

// passwordIn reads the first line of a file that a flag names; - is standard input. A
// password is never on the command line, where others can see it.
func passwordIn(cmd *cobra.Command, flag, file string) (string, error) {
	if file == "-" {
		return readPassword(cmd)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", usage(fmt.Errorf("--%s: %w", flag, err))
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimRight(line, "\r"), nil
}
