package hostset

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"espalier/policy"
)

// This file reads what name servers take as block lists: configuration of dnsmasq and
// unbound, and response policy zones (RPZ). Lines that answer by anything but "there is no
// such host" are skipped: they redirect, and a proxy cannot.

// isNull reports whether an answer leads nowhere: no address, 0.0.0.0, ::, or loopback.
func isNull(answer string) bool {
	if answer == "" || answer == "#" {
		return true
	}
	a, err := netip.ParseAddr(answer)
	return err == nil && (a.IsUnspecified() || a.IsLoopback())
}

// absolute returns a name without the dot at its end.
func absolute(name string) string { return strings.TrimSuffix(name, ".") }

// dnsmasq takes "address=/name/…/answer", "server=/name/…/" and "local=/name/…/": the names
// and all below them. A server "#" is the usual one, so the names are excepted. ok is false
// for other lines.
func (p *parser) dnsmasq(line string) (ok bool, _ error) {
	key, value, found := strings.Cut(line, "=")
	key = strings.TrimSpace(key)
	if !found || key != "address" && key != "server" && key != "local" {
		return false, nil
	}
	value, _, _ = strings.Cut(strings.TrimSpace(value), " ") // a comment
	parts := strings.Split(value, "/")
	if len(parts) < 3 || parts[0] != "" {
		return true, errSkip // for every name
	}
	names, answer := parts[1:len(parts)-1], parts[len(parts)-1]
	says := below
	switch {
	case key != "address" && answer == "#":
		says = except
	case key == "address" && !isNull(answer), key != "address" && answer != "":
		return true, errSkip
	}
	var bad error
	for _, name := range names {
		if name == "" || name == "#" {
			bad = errSkip
			continue
		}
		bad = errors.Join(bad, p.named(strings.TrimLeft(name, "*."), says))
	}
	return true, bad
}

// named adds a name that is not normal yet.
func (p *parser) named(s string, says byte) error {
	name, _, err := policy.ParseHost(s)
	if err == nil {
		p.add(name, says)
	}
	return err
}

// What zones of unbound make of a name and all below it.
var (
	unboundBlocks = []string{
		"always_nxdomain", "always_nodata", "always_refuse", "always_deny", "always_null", "deny", "inform_deny", "refuse", "static",
	}
	unboundPasses = []string{"transparent", "typetransparent", "always_transparent", "inform"}
)

// unbound takes `local-zone: "name" type` and `local-data: "name type data"`. A zone of type
// redirect answers every name below it by its data, if it has any. ok is false for other
// lines.
func (p *parser) unbound(line string) (ok bool, _ error) {
	key, value, found := strings.Cut(line, ":")
	value, _, _ = strings.Cut(value, " #")
	value = strings.TrimSpace(value)
	if !found {
		return false, nil
	}
	if key != "local-data" && strings.HasPrefix(key, "local-") {
		p.settle()
	}
	switch key {
	case "server":
		return value == "", nil
	case "local-zone":
		f := strings.Fields(value)
		if len(f) != 2 {
			return true, errors.New("invalid local-zone: wanted a name and a type")
		}
		name, kind := absolute(unquoted(f[0])), strings.ToLower(f[1])
		switch {
		case slices.Contains(unboundBlocks, kind):
			return true, p.named(name, below)
		case slices.Contains(unboundPasses, kind):
			return true, p.named(name, except)
		case kind == "redirect" || kind == "inform_redirect":
			normal, _, err := policy.ParseHost(name)
			p.redirect = normal
			return true, err
		}
		return true, errSkip
	case "local-data":
		f := strings.Fields(unquoted(value))
		name, data := "", ""
		if len(f) > 2 {
			name, data = absolute(f[0]), f[len(f)-1]
			if normal, _, err := policy.ParseHost(name); err == nil {
				name = normal
			}
		}
		zone := p.redirect
		switch {
		case name == "" || !isAddressType(f[len(f)-2]) || !isNull(data):
			if name != "" && name == zone {
				p.redirect = ""
			}
			return true, errSkip
		case name == zone:
			p.settle()
			return true, nil
		}
		return true, p.named(name, exact)
	case "local-data-ptr":
		return true, errSkip
	}
	return false, nil
}

// settle adds a zone of type redirect, which answers by nothing, or by addresses that lead
// nowhere.
func (p *parser) settle() {
	if zone := p.redirect; zone != "" {
		p.redirect = ""
		p.add(zone, below)
	}
}

func unquoted(s string) string { return strings.Trim(s, `"'`) }

func isAddressType(s string) bool { return strings.EqualFold(s, "A") || strings.EqualFold(s, "AAAA") }

// recordTypes are what a line of a zone may hold, and a policy zone ever does.
var recordTypes = []string{"CNAME", "A", "AAAA", "SOA", "NS", "TXT", "MX", "SRV", "PTR", "DNAME", "CAA", "HTTPS", "SVCB"}

// A zone is how far a zone file was read (RFC 1035, section 5).
type zone struct {
	origin string // of names without a dot at their end; "" is the root
	owner  string // of the last record, which the next may leave out
	open   bool   // within parentheses, which only the SOA has
}

// directive takes "$ORIGIN name", and others that do not matter.
func (z *zone) directive(line string) {
	if f := strings.Fields(line); len(f) > 1 && strings.EqualFold(f[0], "$ORIGIN") {
		z.origin = strings.ToLower(absolute(f[1]))
	}
}

// rpz takes a record of a response policy zone: name [TTL] [IN] type data. ok is false if it
// is none.
func (p *parser) rpz(f []string) (ok bool, _ error) {
	at := slices.IndexFunc(f[:min(len(f), 4)], func(s string) bool {
		return slices.Contains(recordTypes, strings.ToUpper(s))
	})
	if at < 0 || at == len(f)-1 {
		return false, nil
	}
	head, kind, data := f[:at], strings.ToUpper(f[at]), f[at+1:]
	owner := p.zone.owner
	if len(head) > 0 && !isClassOrTTL(head[0]) {
		owner, head = head[0], head[1:]
	}
	if owner == "" || slices.ContainsFunc(head, func(s string) bool { return !isClassOrTTL(s) }) {
		return false, nil
	}
	if _, err := netip.ParseAddr(data[0]); err != nil && isAddressType(kind) {
		return false, nil // words
	}
	p.zone.owner = owner
	switch kind {
	case "SOA":
		p.zone.open = slices.Contains(data, "(") && !slices.Contains(data, ")")
		if p.zone.origin == "" && owner != "@" {
			p.zone.origin = strings.ToLower(absolute(owner))
		}
		return true, nil
	case "NS":
		return true, nil
	}
	return true, p.policy(p.zone.trigger(owner), kind, data[0])
}

// trigger returns the name that a record's owner stands for; "" is the zone itself.
func (z *zone) trigger(owner string) string {
	name, whole := strings.CutSuffix(strings.ToLower(owner), ".")
	if name == "@" || name == z.origin {
		return ""
	}
	if whole && z.origin != "" {
		name = strings.TrimSuffix(name, "."+z.origin)
	}
	return name
}

// policy takes what a policy zone does about a name.
func (p *parser) policy(name, kind, data string) error {
	name, wild := strings.CutPrefix(name, "*.")
	blocks, passes := exact, exceptExact
	if wild {
		blocks, passes = under, exceptUnder
	}
	switch target := strings.ToLower(data); {
	case name == "" || hasTrigger(name):
		return errSkip // by the client's or an answer's address, or by a name server
	case kind == "CNAME" && (target == "rpz-passthru." || absolute(target) == name):
		return p.named(name, passes)
	case kind == "CNAME" && (target == "." || target == "*." || target == "rpz-drop."), isAddressType(kind) && isNull(data):
		return p.named(name, blocks)
	}
	return errSkip
}

// otherTriggers are the labels of triggers that are not the name that is asked for.
var otherTriggers = []string{"rpz-ip", "rpz-client-ip", "rpz-nsdname", "rpz-nsip"}

func hasTrigger(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if slices.Contains(otherTriggers, label) {
			return true
		}
	}
	return false
}

func isClassOrTTL(s string) bool {
	return strings.EqualFold(s, "IN") || s[0] >= '0' && s[0] <= '9' && strings.Trim(s, "0123456789smhdwSMHDW") == ""
}
