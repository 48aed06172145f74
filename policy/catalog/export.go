package catalog

import (
	"bufio"
	"bytes"
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
	write func(*bufio.Writer, []Row) error
}{
	{"json", exportJSON},
	{"csv", exportCSV},
	{"hosts", exportHosts},
	{"squid", exportSquid},
	{"nftables", exportNftables},
	{"mikrotik", exportMikroTik},
	{"fortinet", exportFortinet},
}

// Formats are the names of the forms that Export writes.
func Formats() []string {
	var names []string
	for _, f := range formats {
		names = append(names, f.name)
	}
	return names
}

// Export writes rows, retired ones included, in one of Formats:
//
//   - json: an array of objects, one a line, with the fields of Row;
//   - csv: a head and a line for each row, lists separated by spaces;
//   - hosts: the host patterns, each once;
//   - squid: ACLs and access rules for what a proxy carries;
//   - nftables, mikrotik, fortinet: what a firewall must let out because an
//     HTTP proxy does not carry it, UDP and SSH.
//
// The rows must be valid, as Parse and Import leave them.
func Export(w io.Writer, format string, rows []Row) error {
	for _, f := range formats {
		if f.name == format {
			b := bufio.NewWriter(w)
			if err := f.write(b, rows); err != nil {
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

func exportJSON(b *bufio.Writer, rows []Row) error {
	for i, r := range rows {
		b.WriteString([]string{"[\n  ", ",\n  "}[min(i, 1)])
		data, err := r.MarshalJSON()
		if err != nil {
			return err
		}
		b.Write(bytes.TrimSpace(data))
	}
	if len(rows) == 0 {
		b.WriteString("[")
	}
	b.WriteString("\n]\n")
	return nil
}

func exportCSV(b *bufio.Writer, rows []Row) error {
	w := csv.NewWriter(b)
	w.Write(strings.Split("host,ports,transports,systems,service,section,purpose,proxy,since,until,source,unknown,note", ","))
	for _, r := range rows {
		w.Write([]string{
			r.Host, join(r.Ports, " "), join(r.Transports, " "), join(r.Systems, " "), r.Service, r.Section, r.Purpose,
			string(r.Proxy), r.Since, r.Until, r.Source, join(r.Unknown, " "), r.Note,
		})
	}
	w.Flush()
	return w.Error()
}

func exportHosts(b *bufio.Writer, rows []Row) error {
	seen := map[string]bool{}
	for _, r := range rows {
		if !seen[r.Host] {
			seen[r.Host] = true
			fmt.Fprintln(b, r.Host)
		}
	}
	return nil
}

// exportSquid writes an ACL of names and one of ports for each set of ports.
// Squid refuses a name beside a domain that contains it in one ACL, and its
// ".x" is x and the names below it.
func exportSquid(b *bufio.Writer, rows []Row) error {
	var sets []string // in the order in which they occur
	ports := map[string][]uint16{}
	names := map[string][]string{}
	for _, r := range rows {
		if !r.TCP() {
			continue
		}
		list := slices.Sorted(slices.Values(r.Ports))
		set := join(list, "_")
		if ports[set] == nil {
			sets, ports[set] = append(sets, set), list
		}
		name := r.Host
		if x, ok := strings.CutPrefix(name, "*"); ok {
			name = x
		}
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
	for _, set := range sets {
		list := names[set]
		below := func(name string) bool { // covered by a domain of the same ACL
			return slices.ContainsFunc(list, func(d string) bool {
				return d != name && d[0] == '.' && strings.HasSuffix("."+name, d)
			})
		}
		fmt.Fprintf(b, "\nacl apple_ports_%s port %s\n", set, join(ports[set], " "))
		for _, name := range list {
			if !below(name) {
				fmt.Fprintf(b, "acl apple_%s dstdomain %s\n", set, name)
			}
		}
		fmt.Fprintf(b, "http_access allow localnet apple_%[1]s apple_ports_%[1]s\n", set)
	}
	return nil
}
