package catalog

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// This file has the words of Apple's article, in the languages that Import
// reads: what heads its columns, what stands in its cells, what its sections
// are called. It has no host names.

// A column is what a column of the article's tables says.
type column int

const (
	colHost column = iota
	colPorts
	colTransports
	colSystems
	colPurpose
	colProxy
)

var columns = map[string]column{
	"hosts": colHost, "host": colHost, "servrar": colHost, "värdar": colHost,
	"ports": colPorts, "port": colPorts, "portar": colPorts,
	"protocol": colTransports, "protocols": colTransports, "protokoll": colTransports,
	"os": colSystems, "operating system": colSystems, "operativsystem": colSystems,
	"description": colPurpose, "beskrivning": colPurpose,
	"supports proxies": colProxy, "proxy support": colProxy, "stöd för proxyservrar": colProxy, "stöd för proxy": colProxy,
}

// A section is a part of the article.
type section struct {
	name    string // English
	service string // empty: a part that has no table
}

// sections has the article's headings, folded, the older and newer ones, in
// each language.
var sections = map[string]section{}

func init() {
	for _, s := range []struct {
		section
		others []string
	}{
		{section{"Apple Push Notifications", Push}, []string{"Apples pushnotiser"}},
		{section{"Device setup", "device-setup"}, []string{"Enhetsinställning"}},
		{section{"Device management", "device-management"}, []string{"Enhetshantering"}},
		{section{"Apple Business Manager and Apple School Manager", "business-school"}, []string{
			"Apple School Manager and Apple Business Manager",
			"Apple Business Manager och Apple School Manager", "Apple School Manager och Apple Business Manager"}},
		{section{"Apple Business Essentials device management", "business-essentials"}, []string{
			"Apple Business Essentials", "Apple Business Essentials-enhetshantering"}},
		{section{"Classroom and Schoolwork", "classroom"}, []string{"Klassrum och Skolarbete"}},
		{section{"Software updates", "software-update"}, []string{"Mjukvaruuppdateringar", "Programuppdateringar"}},
		{section{"App Store", "app-store"}, nil},
		{section{"Carrier updates", "carrier"}, []string{"Uppdateringar från operatör", "Operatörsuppdateringar"}},
		{section{"Content caching", "content-caching"}, []string{"Innehållscachning", "Innehållscachelagring"}},
		{section{"App features", "app-features"}, []string{"Appfunktioner"}},
		{section{"Beta updates", "beta"}, []string{"Betauppdateringar", "Feedback Assistant", "Feedbackassistent"}},
		{section{"Apple Diagnostics", "diagnostics"}, nil},
		{section{"DNS resolution", "dns"}, []string{"Domain Name System resolution", "DNS-konvertering"}},
		{section{"Certificate validation", "certificates"}, []string{"Certifikatvalidering"}},
		{section{"Apple ID", "apple-account"}, []string{"Apple-ID"}},
		{section{"Apple Account", "apple-account"}, []string{"Apple-konto"}},
		{section{"iCloud", "icloud"}, nil},
		{section{"Siri and search", "siri"}, []string{"Siri och sökning"}},
		{section{"Apple Intelligence, Siri and Search", "siri"}, []string{"Apple Intelligence, Siri och sökning"}},
		{section{"Associated Domains", "associated-domains"}, []string{"Associerade domäner"}},
		{section{"Tap to Pay on iPhone", "tap-to-pay"}, []string{"Tap to Pay på iPhone"}},
		{section{"ID Verifier", "id-verifier"}, nil},
		{section{"Additional content", "additional-content"}, []string{"Ytterligare innehåll"}},
		{section{"Apps and additional content", "additional-content"}, []string{"Appar och ytterligare innehåll"}},
		{section{"Firewalls", ""}, []string{"Brandväggar"}},
		{section{"HTTP proxy", ""}, []string{"HTTP-proxy", "HTTP-proxyserver"}},
		{section{"Content distribution networks and DNS resolution", ""}, []string{
			"Content networks and DNS resolution", "Nätverk för innehållsdistribution och DNS-konvertering"}},
		{section{"Recent changes", ""}, []string{"Nyligen genomförda förändringar"}},
		{section{"Learn more", ""}, []string{"Läs mer"}},
	} {
		for _, heading := range append(s.others, s.name) {
			sections[foldHeading(heading)] = s.section
		}
	}
}

// foldHeading makes headings that differ in case, commas, hyphens or the
// spelling of "and" equal.
func foldHeading(s string) string {
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return isAnd(w) }), " ")
}

func isAnd(lower string) bool {
	return lower == "and" || lower == "och" || lower == "or" || lower == "eller"
}

func lookupSection(s string) (section, bool) {
	sec, ok := sections[foldHeading(s)]
	return sec, ok
}

func lookupColumn(s string) (column, bool) {
	c, ok := columns[strings.ToLower(s)]
	return c, ok
}

// isBlank reports whether a cell says that it is empty.
func isBlank(s string) bool {
	return s == "" || s == "-" || s == "–" || s == "—"
}

// isNumbers reports whether s has the shape of a list of numbers; they may
// still not be ports.
var isNumbers = regexp.MustCompile(`^\d+(?:(?:\s*[,/&]\s*|\s+)(?:(?:and|och)\s+)?\d+)*$`).MatchString

// split cuts a list such as "a, b, and c" or "a/b".
func split(s string) []string {
	return slices.DeleteFunc(strings.FieldsFunc(s, func(r rune) bool {
		return r == ',' || r == '/' || r == '&' || unicode.IsSpace(r)
	}), func(w string) bool { return isAnd(strings.ToLower(w)) })
}

func readPorts(s string) (ports []uint16, err error) {
	if !isNumbers(s) {
		return nil, fmt.Errorf("%q is not a list of ports (want numbers such as \"443, 80\")", s)
	}
	for _, w := range split(s) {
		port, err := checkPort(w)
		if err == nil {
			ports, err = addUnique(ports, port)
		}
		if err != nil {
			return nil, err
		}
	}
	return ports, nil
}

// readTransports reads a protocol cell. SSH is TCP.
func readTransports(s string) (list []string, err error) {
	for _, w := range split(s) {
		t := strings.ToLower(w)
		if t == "ssh" {
			t = "tcp"
		}
		if !slices.Contains(transports, t) {
			return nil, fmt.Errorf("%q is not a protocol (known: TCP, UDP, SSH)", s)
		}
		if list, err = addUnique(list, t); err != nil {
			return nil, fmt.Errorf("protocol %w", err)
		}
	}
	if list == nil {
		return nil, fmt.Errorf("%q is not a protocol (known: TCP, UDP, SSH)", s)
	}
	return list, nil
}

var osName = regexp.MustCompile(`^\pL*OS$`)

// systemWords returns the names in a cell such as "iOS, iPadOS and tvOS" or
// "macOS only".
func systemWords(s string) []string {
	return slices.DeleteFunc(split(s), func(w string) bool {
		w = strings.ToLower(w)
		return w == "only" || w == "endast"
	})
}

// isSystems reports whether s has the shape of a list of operating systems;
// they may still not be known.
func isSystems(s string) bool {
	words := systemWords(s)
	return len(words) > 0 && !slices.ContainsFunc(words, func(w string) bool { return !osName.MatchString(w) })
}

func readSystems(s string) (list []string, err error) {
	for _, w := range systemWords(s) {
		id := strings.ToLower(w)
		if !slices.Contains(systemIDs, id) {
			return nil, fmt.Errorf("%q is not an operating system (known: iOS, iPadOS, tvOS, macOS, watchOS, visionOS)", w)
		}
		if list, err = addUnique(list, id); err != nil {
			return nil, fmt.Errorf("operating system %w", err)
		}
	}
	return list, nil
}

var apnsNote = regexp.MustCompile(`(?i)(?:\bAPNs\b|\bPN-tjänst).*prox`)

// readProxy reads a cell of the last column; ok is false where it is none.
func readProxy(s string) (p Proxy, ok bool) {
	switch lower := strings.ToLower(s); {
	case lower == "yes" || lower == "ja":
		return ProxyYes, true
	case isBlank(s) || lower == "no" || lower == "nej":
		return ProxyUnmarked, true
	case apnsNote.MatchString(s):
		return ProxySeeAPNs, true
	}
	return "", false
}

// serviceOf is what a row of s counts for. Push has no table of its own in the
// article.
func (s section) serviceOf(host string) string {
	if strings.HasSuffix(host, ".push.apple.com") {
		return Push
	}
	return s.service
}
