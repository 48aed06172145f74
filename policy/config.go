package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"espalier/policy/catalog"
	"espalier/policy/hostclass"
)

// Values of apple.private_relay.
const (
	RelayAllow = "allow"
	RelayBlock = "block"
)

// Apple is the configuration of what counts as Apple's.
type Apple struct {
	// Wide adds catalog.Wide: names below apple.com and .apple, the apexes of
	// Apple's domains, and literals in Apple's own address blocks, on any port.
	Wide bool `koanf:"wide"`
	// Extra are patterns treated like Apple's, "host" (any port) or
	// "host:port,port"; a host may begin with "*.".
	Extra []string `koanf:"extra"`
	// Catalog is a catalogue file to use in place of the embedded one; empty
	// means the embedded one.
	Catalog string `koanf:"catalog"`
	// PrivateRelay is "allow" or "block"; empty means allow.
	PrivateRelay string `koanf:"private_relay"`
}

// Validate checks everything but the contents of the catalogue file.
func (a Apple) Validate() error {
	var errs []error
	if !slices.Contains([]string{"", RelayAllow, RelayBlock}, a.PrivateRelay) {
		errs = append(errs, fmt.Errorf("private_relay: %q is unknown (allowed: allow, block)", a.PrivateRelay))
	}
	for i, s := range a.Extra {
		if _, err := parseExtra(s); err != nil {
			errs = append(errs, fmt.Errorf("extra[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// compile returns the catalogue with the rows that the options add. The added
// rows stand last, so that a row of the article wins among equals.
func (a Apple) compile() (*catalog.Set, error) {
	if err := a.Validate(); err != nil {
		return nil, err
	}
	rows := catalog.Embedded()
	if a.Catalog != "" {
		var err error
		if rows, err = catalog.Load(a.Catalog); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
	}
	rows = slices.Clone(rows)
	if a.Wide {
		rows = append(rows, catalog.Wide()...)
	}
	for _, s := range a.Extra {
		r, _ := parseExtra(s) // Validate has seen it
		rows = append(rows, r)
	}
	return catalog.Compile(rows), nil
}

// parseExtra parses an element of apple.extra. An IPv6 address with ports needs
// brackets.
func parseExtra(s string) (catalog.Row, error) {
	host, list, hasPorts := s, "", false
	if end := strings.Index(s, "]:"); end >= 0 && s[0] == '[' {
		host, list, hasPorts = s[:end+1], s[end+2:], true
	} else if strings.Count(s, ":") == 1 {
		host, list, hasPorts = strings.Cut(s, ":")
	}
	if _, word := hostclass.Word(host); word {
		return catalog.Row{}, fmt.Errorf("%q stands for local hosts, which are not Apple's; name each host", host)
	}
	host, err := ParsePattern(host)
	if err != nil {
		return catalog.Row{}, err
	}
	if !hasPorts {
		return catalog.Extra(host, nil), nil
	}
	var ports []uint16
	for p := range strings.SplitSeq(list, ",") {
		port, err := ParsePort(strings.TrimSpace(p))
		if err != nil {
			return catalog.Row{}, fmt.Errorf("%q: %w", s, err)
		}
		ports = append(ports, port)
	}
	return catalog.Extra(host, ports), nil
}

// Values of inspect.mode.
const (
	InspectNone   = "none"
	InspectListed = "listed"
	InspectAll    = "all"
)

// InspectConfig says which tunnels are intercepted; Apple's never are.
type InspectConfig struct {
	// Mode is none, listed (only what a rule with "then: inspect" names) or
	// all; empty means none.
	Mode string `koanf:"mode"`
	// Exempt are host patterns, and words of hostclass.Words, that mode all leaves alone.
	Exempt []string `koanf:"exempt"`
	// Unknown is what is done with tunnels that hold neither TLS nor HTTP:
	// tunnel or deny; empty means tunnel.
	Unknown string `koanf:"unknown"`
	// DenyPage has the page that says why shown to a client whose CONNECT a rule
	// denies: its TLS is answered for that, unless the host is exempt. It needs
	// mode listed or all. False refuses the CONNECT.
	DenyPage bool `koanf:"deny_page"`
	// Roots are PEM files of CAs that destinations may have certificates of,
	// beside those that the system trusts.
	Roots []string `koanf:"roots"`
	// KnownExempt has mode all leave the hosts of package exempt alone.
	KnownExempt bool `koanf:"known_exempt"`
	// Pinned is about clients that refuse the CA's certificate.
	Pinned Pinned `koanf:"pinned"`
	// WithoutCA is what is done with clients that refuse the CA's certificate and have
	// accepted it nowhere: deny or tunnel; empty means deny.
	WithoutCA string `koanf:"without_ca"`
}

// Pinned says how hosts are treated whose clients refuse the CA's certificate.
type Pinned struct {
	// For is how long such a host is tunnelled for such a client; 0 means that it
	// never is.
	For time.Duration `koanf:"for"`
}

// Values of inspect.unknown.
const (
	UnknownTunnel = "tunnel"
	UnknownDeny   = "deny"
)

// Values of inspect.without_ca.
const (
	WithoutCATunnel = "tunnel"
	WithoutCADeny   = "deny"
)

// Validate checks everything but the files' contents.
func (c InspectConfig) Validate() error {
	var errs []error
	if !slices.Contains([]string{"", InspectNone, InspectListed, InspectAll}, c.Mode) {
		errs = append(errs, fmt.Errorf("mode: %q is unknown (allowed: none, listed, all)", c.Mode))
	}
	if !slices.Contains([]string{"", UnknownTunnel, UnknownDeny}, c.Unknown) {
		errs = append(errs, fmt.Errorf("unknown: %q is unknown (allowed: tunnel, deny)", c.Unknown))
	}
	if !slices.Contains([]string{"", WithoutCATunnel, WithoutCADeny}, c.WithoutCA) {
		errs = append(errs, fmt.Errorf("without_ca: %q is unknown (allowed: deny, tunnel)", c.WithoutCA))
	}
	if c.DenyPage && (c.Mode == "" || c.Mode == InspectNone) {
		errs = append(errs, errors.New("deny_page: needs inspect.mode listed or all, not none: the page is shown inside TLS"))
	}
	for i, name := range c.Roots {
		if name == "" {
			errs = append(errs, fmt.Errorf("roots[%d]: is empty (wanted: a file)", i))
		}
	}
	if c.Pinned.For < 0 {
		errs = append(errs, errors.New("pinned.for: must not be negative"))
	}
	_, err := compileHosts(c.Exempt)
	return errors.Join(append(errs, under("exempt", err))...)
}
