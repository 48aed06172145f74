package catalog

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// formats are the forms that Export writes, in the order of Formats.
var formats = []struct {
	name  string
	write func(*bufio.Writer, Selection) error
}{
	{"json", exportJSON},
	{"csv", exportCSV},
	{"hosts", exportHosts},
	{"squid", exportSquid},
	{"nftables", exportNftables},
	{"dnsmasq", exportDnsmasq},
	{"mikrotik", exportMikroTik},
	{"fortinet", exportFortinet},
	{"list", exportList},
	{"networks", exportNetworks},
}

// Formats are the names of the forms that Export writes.
func Formats() []string {
	var names []string
	for _, f := range formats {
		names = append(names, f.name)
	}
	return names
}

// CanRefuse reports whether a format refuses what Refused names.
func CanRefuse(format string) bool { return format == "dnsmasq" || format == "squid" }

// ForFirewall reports whether a format is read by firewalls, which need one of
// Sets and not every row.
func ForFirewall(format string) bool {
	return slices.Contains([]string{"nftables", "dnsmasq", "mikrotik", "fortinet", "list", "networks"}, format)
}

// Export writes a selection in one of Formats:
//
//   - json: an array of objects, one a line, with the fields of Row;
//   - csv: a head and a line for each row, lists separated by spaces;
//   - hosts: the host patterns and address blocks, each once;
//   - squid: ACLs and access rules for the TCP rows that have names;
//   - nftables: a chain that accepts the rows, and sets of addresses;
//   - dnsmasq: which names' addresses go into these sets;
//   - mikrotik, fortinet: scripts for RouterOS and FortiOS;
//   - list: the names and wildcards, one a line and nothing else, for firewalls
//     that poll;
//   - networks: the address blocks in the same form.
//
// dnsmasq and squid refuse what Refused names; the others hold only what to let
// through. The rows must be valid, as Parse and Import leave them, or made by the
// options.
func Export(w io.Writer, format string, s Selection) error {
	for _, f := range formats {
		if f.name == format {
			b := bufio.NewWriter(w)
			if err := f.write(b, s); err != nil {
				return err
			}
			return b.Flush()
		}
	}
	return fmt.Errorf("format: %w", checkWord(format, Formats()))
}

// MarshalJSON writes a list that is empty as [], not null.
func (r Row) MarshalJSON() ([]byte, error) {
	type plainRow Row // without this method
	p := plainRow(r)
	if p.Ports == nil {
		p.Ports = []uint16{}
	}
	if p.Transports == nil {
		p.Transports = []string{}
	}
	if p.Systems == nil {
		p.Systems = []string{}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(p)
	return b.Bytes(), err
}

func exportJSON(b *bufio.Writer, s Selection) error {
	for i, r := range s.Rows {
		b.WriteString([]string{"[\n  ", ",\n  "}[min(i, 1)])
		data, err := r.MarshalJSON()
		if err != nil {
			return err
		}
		b.Write(bytes.TrimSpace(data))
	}
	if len(s.Rows) == 0 {
		b.WriteString("[")
	}
	b.WriteString("\n]\n")
	return nil
}

func exportCSV(b *bufio.Writer, s Selection) error {
	w := csv.NewWriter(b)
	w.Write(strings.Split("host,ports,transports,systems,service,section,purpose,proxy,since,until,source,unknown,note", ","))
	for _, r := range s.Rows {
		w.Write([]string{
			r.Host, join(r.Ports, " "), join(r.Transports, " "), join(r.Systems, " "), r.Service, r.Section, r.Purpose,
			string(r.Proxy), r.Since, r.Until, r.Source, join(r.Unknown, " "), r.Note,
		})
	}
	w.Flush()
	return w.Error()
}

func exportHosts(b *bufio.Writer, s Selection) error {
	seen := map[string]bool{}
	for _, r := range s.Rows {
		if !seen[r.Host] {
			seen[r.Host] = true
			fmt.Fprintln(b, r.Host)
		}
	}
	return nil
}

func exportList(b *bufio.Writer, s Selection) error {
	names, _ := hostsOf(s.Rows, all)
	for _, name := range names {
		fmt.Fprintln(b, name)
	}
	return nil
}

func exportNetworks(b *bufio.Writer, s Selection) error {
	_, blocks := hostsOf(s.Rows, all)
	for _, p := range blocks {
		fmt.Fprintln(b, p)
	}
	return nil
}

// exportSquid writes an ACL of names and one of ports for each set of ports.
// Squid refuses a name beside a domain that contains it in one ACL, and its
// ".x" is x and the names below it.
func exportSquid(b *bufio.Writer, s Selection) error {
	var sets []string // in the order in which they occur
	ports := map[string][]uint16{}
	names := map[string][]string{}
	for _, r := range s.Rows {
		if _, isBlock := Block(r.Host); isBlock || !r.TCP() {
			continue
		}
		list := slices.Sorted(slices.Values(r.Ports))
		set := join(list, "_")
		if len(list) == 0 {
			set = "any"
		}
		if !slices.Contains(sets, set) {
			sets, ports[set] = append(sets, set), list
		}
		name := strings.TrimPrefix(r.Host, "*")
		if !slices.Contains(names[set], name) {
			names[set] = append(names[set], name)
		}
	}
	b.WriteString(`# Apple's hosts and ports for squid.conf, written by espalier catalog export.
#
# Include this before the rules that deny ports (Safe_ports, SSL_ports), that ask
# for a password, and "deny all". Where ssl_bump is used, splice these names:
# Apple's services refuse intercepted TLS.
# In Squid ".example.com" is example.com too; Apple's "*.example.com" is not.
# UDP is not here: Squid does not carry it, the firewall must let it out.
`)
	domains := func(acl string, list []string) {
		for _, name := range list {
			covered := slices.ContainsFunc(list, func(d string) bool {
				return d != name && d[0] == '.' && strings.HasSuffix("."+name, d)
			})
			if !covered {
				fmt.Fprintf(b, "acl %s dstdomain %s\n", acl, name)
			}
		}
	}
	if refused := s.within(); len(refused) > 0 {
		b.WriteString("\n# The policy refuses these, though a domain below covers them.\n")
		for i := range refused {
			refused[i] = strings.TrimPrefix(refused[i], "*")
		}
		domains("apple_refused", refused)
		b.WriteString("http_access deny apple_refused\n")
	}
	for _, set := range sets {
		fmt.Fprintf(b, "\nacl apple_ports_%s port %s\n", set, cmp.Or(join(ports[set], " "), "1-65535"))
		domains("apple_"+set, names[set])
		fmt.Fprintf(b, "http_access allow localnet apple_%[1]s apple_ports_%[1]s\n", set)
	}
	return nil
}
