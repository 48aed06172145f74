package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"espalier/policy/catalog"
)

// Rows lists rows of the catalogue by service, in the order of catalog.Services. The
// service's column can be left out where all rows have the same.
func Rows(s Screen, rows []catalog.Row, withService bool) error {
	ids := catalog.ServiceIDs()
	slices.SortStableFunc(rows, func(a, b catalog.Row) int {
		return slices.Index(ids, a.Service) - slices.Index(ids, b.Service)
	})
	t := NewTable("SERVICE", "HOST", "PORTS", "TRANSPORT", "PROXY", "PURPOSE")
	retired, hosts := 0, map[string]bool{}
	for _, r := range rows {
		hosts[r.Host] = true
		transports, proxy := in(plain, joined(r.Transports, ",")), proxyMark(r)
		if r.UDP() {
			transports.as = yellow
		}
		if r.Until == "" {
			t.Add(r.Service, r.Host, joined(r.Ports, ","), transports, proxy, r.Purpose)
			continue
		}
		retired++
		purpose := strings.TrimSuffix("retired "+r.Until+": "+r.Purpose, ": ")
		t.Add(in(dim, r.Service), in(dim, r.Host), in(dim, joined(r.Ports, ",")), in(dim, transports.text), in(dim, proxy.text), in(dim, purpose))
	}
	if !withService {
		t.without("SERVICE")
	}
	if err := t.Write(s); err != nil {
		return err
	}
	sum := fmt.Sprintf("%s, %s, %d retired.", plural(len(rows), "row", "rows"), plural(len(hosts), "host", "hosts"), retired)
	return s.Paragraphs(append([]string{"", sum}, besideTheProxy(rows)...)...)
}

func proxyMark(r catalog.Row) cell {
	switch {
	case slices.Contains(r.Unknown, "proxy"):
		return in(plain, "?")
	case r.Proxy == catalog.ProxyYes:
		return in(green, "yes")
	case r.Proxy == catalog.ProxySeeAPNs:
		return in(green, "by PAC")
	}
	return in(plain, "-")
}

// besideTheProxy says, a line each, what of rows the proxy does not carry.
func besideTheProxy(rows []catalog.Row) (lines []string) {
	var udp, ssh []string
	n := 0
	for _, r := range rows {
		if r.UDP() {
			n++
			for _, p := range r.Ports {
				udp = append(udp, fmt.Sprintf("%s:%d", r.Host, p))
			}
		}
		if r.TCP() && slices.Contains(r.Ports, 22) {
			ssh = append(ssh, r.Host)
		}
	}
	if n > 0 {
		lines = append(lines, fmt.Sprintf("%s with UDP, which a TCP proxy cannot carry; the firewall must let it out: %s.",
			plural(n, "row", "rows"), strings.Join(udp, ", ")))
	}
	if ssh != nil {
		lines = append(lines, fmt.Sprintf("Port 22 is SSH; an SFTP client that knows no HTTP proxy needs it let out, too: %s.", strings.Join(ssh, ", ")))
	}
	if lines != nil {
		lines = append(lines, "For the firewall: espalier catalog export --for devices, proxy, servers or udp.")
	}
	return lines
}

// Import says what an import has decided, a line each. It read file, and wrote total rows.
func Import(w io.Writer, file string, a *catalog.Article, u catalog.Update, known []catalog.Row, total int) error {
	l := &lines{s: Screen{Writer: w}}
	hosts := map[string]bool{}
	for _, r := range a.Rows {
		hosts[r.Host] = true
	}
	fmt.Fprintf(l, "%s: %s, %s (%s)\n", file, plural(len(a.Rows), "row", "rows"), plural(len(hosts), "host", "hosts"), a.Rows[0].Source)
	for _, h := range a.Unknown {
		as := "a section of its own; known hosts keep their service"
		if h.Section != "" {
			as = fmt.Sprintf("read as %q", h.Section)
		}
		fmt.Fprintf(l, "unknown heading %q: %s, %s\n", h.Heading, plural(h.Rows, "row", "rows"), as)
	}
	for _, n := range a.New {
		fmt.Fprintf(l, "new: %s counts for %s: %s\n", n.Host, n.Service, n.Why)
	}
	for _, c := range catalog.Diff(known, a.Rows) {
		if c.Kind == catalog.Moved {
			fmt.Fprintf(l, "moved: %s (%s): %s → %s\n", c.New.Host, c.New.Service, c.Cells[0].Old, c.Cells[0].New)
		}
	}
	for _, r := range u.Retired {
		fmt.Fprintf(l, "retired: %s (%s)\n", r.Host, r.Service)
	}
	for _, r := range u.Restored {
		fmt.Fprintf(l, "listed again: %s (%s)\n", r.Host, r.Service)
	}
	if n := len(u.Newer); n > 0 {
		fmt.Fprintf(l, "%s newer than this edition kept\n", plural(n, "row", "rows"))
	}
	if u.Alone {
		l.WriteString("no host of the catalogue is listed: its rows are left out\n")
	} else {
		fmt.Fprintf(l, "%s written\n", plural(total, "row", "rows"))
	}
	return l.write()
}

// Changes writes what file has changed in the catalogue.
func Changes(s Screen, changes []catalog.Change, file string) error {
	if len(changes) == 0 {
		return s.print(file + " and the catalogue have the same rows.\n")
	}
	t := NewTable("CHANGE", "HOST", "SERVICE", "WHAT")
	styles := map[string]style{catalog.Added: green, catalog.Removed: red, catalog.Changed: yellow, catalog.Moved: dim}
	n := map[string]int{}
	for _, c := range changes {
		n[c.Kind]++
		t.Add(in(styles[c.Kind], c.Kind), c.Row().Host, c.Row().Service, what(c))
	}
	if err := t.Write(s); err != nil {
		return err
	}
	rows := func(kind string) string { return plural(n[kind], "row", "rows") }
	sum := fmt.Sprintf("In %s and not in the catalogue: %s. In the catalogue and not there: %s. Different: %s.",
		file, rows(catalog.Added), rows(catalog.Removed), rows(catalog.Changed))
	if n[catalog.Moved] > 0 {
		sum += fmt.Sprintf(" Only below another heading: %s.", rows(catalog.Moved))
	}
	return s.Paragraphs("", sum)
}

// what describes a change in a line.
func what(c catalog.Change) string {
	var parts []string
	if c.Kind == catalog.Added || c.Kind == catalog.Removed {
		r := c.Row()
		parts = append(parts, joined(r.Ports, ",")+" "+joined(r.Transports, ","))
		if len(r.Systems) > 0 {
			parts = append(parts, joined(r.Systems, " "))
		}
		if r.Proxy != catalog.ProxyUnmarked {
			parts = append(parts, "proxy "+string(r.Proxy))
		}
		if strings.HasPrefix(r.Since, "after") {
			parts = append(parts, "listed "+r.Since)
		} else if r.Since != "" {
			parts = append(parts, "listed since "+r.Since)
		}
	}
	for _, d := range c.Cells {
		switch {
		case d.Cell == "until" && d.New == "":
			parts = append(parts, "retired "+d.Old+", listed there")
		case d.Cell == "until" && d.Old == "":
			parts = append(parts, "retired there "+d.New)
		default:
			parts = append(parts, fmt.Sprintf("%s: %s → %s", d.Cell, cmp.Or(d.Old, "none"), cmp.Or(d.New, "none")))
		}
	}
	return strings.Join(parts, "; ")
}
