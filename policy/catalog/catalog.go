// Package catalog knows Apple's published services: which hosts and ports
// belong to them, and which of them Apple says work through a proxy.
//
// The rows come from Apple's article for network administrators and its later
// changes, embedded as apple.yaml. A Set is the compiled form that answers
// "whose is this host and port?" in time that depends only on the number of
// labels in the name.
package catalog

import (
	"net/netip"
	"slices"
	"strings"
)

// Proxy says what the article's "proxy support" cell says of a row.
type Proxy string

const (
	// ProxyYes marks rows that the article says work through a proxy.
	ProxyYes Proxy = "yes"
	// ProxyUnmarked marks rows whose cell is empty or not known.
	ProxyUnmarked Proxy = "unmarked"
	// ProxySeeAPNs marks the push row, which refers to the APNs note: devices
	// reach APNs through a proxy when a PAC file configures it.
	ProxySeeAPNs Proxy = "see-apns"
)

// Row is one row of the catalogue. A Row is never modified once it is in a Set.
type Row struct {
	// Host is a lower-case ASCII name, a wildcard "*.x" that matches names
	// below x but not x, or (in rows made by the options only) an address
	// block in CIDR notation.
	Host string `yaml:"host" json:"host"`
	// Ports are in the article's order. Empty means any port, which occurs
	// only in rows made by the options.
	Ports []uint16 `yaml:"ports,flow" json:"ports"`
	// Transports are "tcp" and "udp".
	Transports []string `yaml:"transports,flow" json:"transports"`
	// Systems are ios, ipados, tvos, macos, watchos, visionos; empty where the
	// article names none.
	Systems []string `yaml:"systems,flow,omitempty" json:"systems"`
	// Service is the id of the service the row's traffic counts for.
	Service string `yaml:"service" json:"service"`
	// Section is the article's section, in English.
	Section string `yaml:"section" json:"section"`
	// Purpose says in our words what the host is for. It may be empty.
	Purpose string `yaml:"purpose,omitempty" json:"purpose"`
	Proxy   Proxy  `yaml:"proxy" json:"proxy"`
	// Since and Until are "YYYY-MM", "YYYY", a phrase such as "after 2023-07",
	// or empty where not known. A row with Until is retired: the article no
	// longer lists it, older systems still contact it, and it still matches.
	Since string `yaml:"since,omitempty" json:"since"`
	Until string `yaml:"until,omitempty" json:"until"`
	// Source names the edition of the article that the row was taken from.
	Source string `yaml:"source" json:"source"`
	// Unknown lists the cells that the source does not show and that are
	// assumed here: "proxy", "ports", "systems", ….
	Unknown []string `yaml:"unknown,flow,omitempty" json:"unknown,omitempty"`
	// Note is anything else a reader should know, such as a former name.
	Note string `yaml:"note,omitempty" json:"note,omitempty"`
}

// TCP reports whether a TCP proxy can carry the row's traffic at all.
func (r *Row) TCP() bool { return slices.Contains(r.Transports, "tcp") }

// UDP reports whether the row names UDP, which a firewall must let out because
// a proxy cannot carry it.
func (r *Row) UDP() bool { return slices.Contains(r.Transports, "udp") }

// HasPort reports whether the row covers port.
func (r *Row) HasPort(port uint16) bool {
	return len(r.Ports) == 0 || slices.Contains(r.Ports, port)
}

// Service ids that no section of the article has.
const (
	// Push is the service of *.push.apple.com.
	Push = "push"
	// AppleOther is the service of the article's firewall advice and of
	// patterns that the administrator adds.
	AppleOther = "apple-other"
	// Other is the service of everything that is not Apple's.
	Other = "other"
)

// Service is one of Apple's services as counted and logged.
type Service struct {
	ID      string // stable; used in records, metrics and rules
	Section string // the article's section, in English
}

// Services are all service ids in the article's order, then apple-other and
// other. The slice must not be modified.
var Services = []Service{
	{Push, "Apple Push Notification service"},
	{"device-setup", "Device setup"},
	{"device-management", "Device management"},
	{"business-school", "Apple Business Manager and Apple School Manager"},
	{"business-essentials", "Apple Business Essentials"},
	{"classroom", "Classroom and Schoolwork"},
	{"software-update", "Software updates"},
	{"app-store", "App Store"},
	{"carrier", "Carrier updates"},
	{"content-caching", "Content caching"},
	{"app-features", "App features"},
	{"beta", "Beta updates"},
	{"diagnostics", "Apple Diagnostics"},
	{"dns", "DNS resolution"},
	{"certificates", "Certificate validation"},
	{"apple-account", "Apple Account"},
	{"icloud", "iCloud"},
	{"siri", "Siri and search"},
	{"associated-domains", "Associated Domains"},
	{"tap-to-pay", "Tap to Pay on iPhone"},
	{"additional-content", "Additional content"},
	{"id-verifier", "ID Verifier"},
	{AppleOther, "Other Apple services"},
	{Other, "Everything else"},
}

// ServiceIDs are the ids of Services.
func ServiceIDs() []string {
	var ids []string
	for _, s := range Services {
		ids = append(ids, s.ID)
	}
	return ids
}

// IsService reports whether id is one of Services.
func IsService(id string) bool {
	return slices.ContainsFunc(Services, func(s Service) bool { return s.ID == id })
}

// appleDomains are the domains of Apple's own, registered by Apple, that the
// catalogue has names of. The domains of others that Apple's devices contact,
// such as digicert.com, are not among them.
var appleDomains = []string{
	"apple.com", "icloud.com", "icloud.com.cn", "icloud-content.com", "cdn-apple.com", "mzstatic.com", "itunes.com",
	"apple-cloudkit.com", "apple-dns.net", "apple-livephotoskit.com", "apple-mapkit.com", "appleschoolcontent.com",
	"apzones.com", "axm-usercontent-apple.com",
}

// Wide are the rows of the article's firewall advice, on any port: every name
// below apple.com and literals in Apple's own address blocks. Every name below
// the top-level domain .apple, which is Apple's, and the apexes of Apple's
// domains, which "*.x" does not match, are among them.
func Wide() []Row {
	var rows []Row
	add := func(source string, hosts ...string) {
		for _, host := range hosts {
			rows = append(rows, Row{
				Host: host, Transports: []string{"tcp", "udp"}, Service: AppleOther,
				Section: "Firewalls", Purpose: "Apple's own names and addresses",
				Proxy: ProxyUnmarked, Source: source,
			})
		}
	}
	const advice = "article, firewall advice"
	add(advice, "*.apple.com")
	add("the owner of .apple is Apple", "*.apple")
	add("apexes of Apple's domains", appleDomains...)
	add(advice, "17.0.0.0/8", "2403:300::/32", "2620:149::/32", "2620:0:1b00::/48", "2a01:b740::/32", "2a01:b747::/32")
	return rows
}

// Extra makes a row of a pattern that the administrator wants treated like
// Apple's. No ports means any.
func Extra(host string, ports []uint16) Row {
	return Row{
		Host: host, Ports: ports, Transports: []string{"tcp"}, Service: AppleOther,
		Section: "apple.extra", Purpose: "added by the administrator",
		Proxy: ProxyUnmarked, Source: "configuration, apple.extra",
	}
}

// A Set is a compiled list of rows. It is immutable and safe for concurrent
// use.
type Set struct {
	rows  []Row
	exact map[string][]*Row // by name
	below map[string][]*Row // "*.x" by x
	nets  []netRow
}

type netRow struct {
	prefix netip.Prefix
	row    *Row
}

// Compile builds a Set. Where rows are equally specific the earlier one wins,
// so their order matters. The rows must be valid, as Parse leaves them.
func Compile(rows []Row) *Set {
	s := &Set{
		rows:  slices.Clone(rows),
		exact: make(map[string][]*Row, len(rows)),
		below: make(map[string][]*Row),
	}
	for i := range s.rows {
		r := &s.rows[i]
		if p, err := netip.ParsePrefix(r.Host); err == nil {
			s.nets = append(s.nets, netRow{p.Masked(), r})
		} else if x, ok := strings.CutPrefix(r.Host, "*."); ok {
			s.below[x] = append(s.below[x], r)
		} else if a, err := netip.ParseAddr(r.Host); err == nil {
			s.nets = append(s.nets, netRow{netip.PrefixFrom(a, a.BitLen()), r})
		} else {
			s.exact[r.Host] = append(s.exact[r.Host], r)
		}
	}
	// The longest prefix is the most specific; the sort is stable for ties.
	slices.SortStableFunc(s.nets, func(a, b netRow) int { return b.prefix.Bits() - a.prefix.Bits() })
	return s
}

// Rows returns the rows in the order given to Compile. The slice must not be
// modified.
func (s *Set) Rows() []Row { return s.rows }

// A Match says whose a host and port are.
type Match struct {
	// Row is the most specific row that covers host and port, the first in the
	// list among equals. It is nil where none does.
	Row *Row
	// Marked reports whether any row that covers host and port, also a less
	// specific one, is marked for proxy support.
	Marked bool
}

// OK reports whether any row matched.
func (m Match) OK() bool { return m.Row != nil }

// Service is the service id of the match, Other where there is none.
func (m Match) Service() string {
	if m.Row == nil {
		return Other
	}
	return m.Row.Service
}

// Match looks a normalised name (lower case, no trailing dot) or address up.
// addr decides where it is valid, host otherwise. Match does not allocate.
//
// Transports do not matter here: a row that names only UDP still says whose
// the host is.
func (s *Set) Match(host string, addr netip.Addr, port uint16) Match {
	var m Match
	s.each(host, addr, port, func(r *Row) {
		if m.Row == nil {
			m.Row = r
		}
		m.Marked = m.Marked || r.Proxy != ProxyUnmarked
	})
	return m
}

// All returns every row that covers host and port, the most specific first.
func (s *Set) All(host string, addr netip.Addr, port uint16) []*Row {
	var rows []*Row
	s.each(host, addr, port, func(r *Row) { rows = append(rows, r) })
	return rows
}

// each calls f for every row that covers host and port, the most specific
// pattern first, rows of the same pattern in their order.
func (s *Set) each(host string, addr netip.Addr, port uint16, f func(*Row)) {
	if addr.IsValid() {
		for _, n := range s.nets {
			if n.prefix.Contains(addr) && n.row.HasPort(port) {
				f(n.row)
			}
		}
		return
	}
	for _, r := range s.exact[host] {
		if r.HasPort(port) {
			f(r)
		}
	}
	for rest := host; ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return
		}
		for _, r := range s.below[parent] {
			if r.HasPort(port) {
				f(r)
			}
		}
		rest = parent
	}
}
