package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"espalier/policy/catalog"
)

// catalogCommand is `espalier catalog`.
func catalogCommand() *cobra.Command {
	var file string
	rows := func() ([]catalog.Row, error) {
		if file == "" {
			return catalog.Embedded(), nil
		}
		rows, err := catalog.Load(file)
		return rows, usage(err)
	}
	cmd := &cobra.Command{
		Use:   "catalog",
		Short: "Show, export, import and compare the catalogue of Apple's services",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&file, "catalog", "", "use the catalogue in `FILE` in place of the built-in one")
	_ = cmd.MarkPersistentFlagFilename("catalog", "yaml", "yml")
	cmd.AddCommand(catalogList(rows), catalogExport(), catalogImport(rows), catalogDiff(rows))
	return cmd
}

func catalogList(load func() ([]catalog.Row, error)) *cobra.Command {
	var service string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List Apple's hosts, ports and what they are for",
		Long: `List Apple's hosts, ports and what they are for.

PROXY is what Apple's article says of proxies: yes, by PAC (push notifications,
where a PAC file names the proxy), - where it says nothing, ? where the cell is
not known. A retired row is one that the article no longer has; it still counts,
for older systems use it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if service != "" && !catalog.IsService(service) {
				return usage(fmt.Errorf("--service: %q is unknown (allowed: %s)", service, strings.Join(serviceIDs(), ", ")))
			}
			rows, err := load()
			if err != nil {
				return err
			}
			rows = slices.DeleteFunc(slices.Clone(rows), func(r catalog.Row) bool { return service != "" && r.Service != service })
			if asJSON {
				return catalog.Export(cmd.OutOrStdout(), "json", catalog.Selection{Rows: rows})
			}
			return writeRows(newScreen(cmd.OutOrStdout()), rows, service == "")
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "only the rows of this `SERVICE`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	_ = cmd.RegisterFlagCompletionFunc("service", cobra.FixedCompletions(serviceIDs(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func serviceIDs() []string {
	var ids []string
	for _, s := range catalog.Services {
		ids = append(ids, s.ID)
	}
	return ids
}

// writeRows lists rows by service, in the order of catalog.Services. The
// service's column can be left out where all rows have the same.
func writeRows(s screen, rows []catalog.Row, withService bool) error {
	ids := serviceIDs()
	slices.SortStableFunc(rows, func(a, b catalog.Row) int {
		return slices.Index(ids, a.Service) - slices.Index(ids, b.Service)
	})
	t := table{head: []string{"SERVICE", "HOST", "PORTS", "TRANSPORT", "PROXY", "PURPOSE"}}
	skip := 1
	if withService {
		skip = 0
	}
	retired, hosts := 0, map[string]bool{}
	for _, r := range rows {
		hosts[r.Host] = true
		transports, purpose := cell{joined(r.Transports, ","), plain}, cell{r.Purpose, plain}
		if r.UDP() {
			transports.as = yellow
		}
		line := []cell{{r.Service, plain}, {r.Host, plain}, {joined(r.Ports, ","), plain}, transports, proxyMark(r), purpose}
		if r.Until != "" {
			retired++
			line[5].text = strings.TrimSuffix("retired "+r.Until+": "+r.Purpose, ": ")
			for i := range line {
				line[i].as = dim
			}
		}
		t.add(line[skip:]...)
	}
	t.head = t.head[skip:]
	if err := t.write(s); err != nil {
		return err
	}
	return s.paragraphs(append([]string{"", fmt.Sprintf("%s, %s, %d retired.", plural(len(rows), "row", "rows"), plural(len(hosts), "host", "hosts"), retired)},
		besideTheProxy(rows)...))
}

func proxyMark(r catalog.Row) cell {
	switch {
	case slices.Contains(r.Unknown, "proxy"):
		return cell{"?", plain}
	case r.Proxy == catalog.ProxyYes:
		return cell{"yes", green}
	case r.Proxy == catalog.ProxySeeAPNs:
		return cell{"by PAC", green}
	}
	return cell{"-", plain}
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

func catalogImport(load func() ([]catalog.Row, error)) *cobra.Command {
	var sections []string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Bring the catalogue to an edition of Apple's article",
		Long: `Bring the catalogue to an edition of Apple's article for network administrators.

FILE is the article in any language, as HTML, Markdown or plain text: one cell a
line, or one row a line with tabs or spaces between the cells; - is standard
input. The catalogue is written as YAML, for apple.catalog in the configuration.

Known hosts keep their service, purpose and notes, whatever heading the article
lists them under, so rules go on matching. Rows that the article does not list
any more are kept and marked as retired, for older systems still use them. A new
host gets the service of its heading; where the heading is unknown, --section
says which, or else the nearest by name is taken. What was decided is reported on
standard error.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := catalog.Options{Sections: map[string]string{}}
			for _, s := range sections {
				i := strings.LastIndex(s, "=")
				heading, service := strings.TrimSpace(s[:max(i, 0)]), strings.TrimSpace(s[i+1:])
				if heading == "" || service == catalog.Other || !catalog.IsService(service) {
					return usage(fmt.Errorf("--section: invalid %q (want HEADING=SERVICE; services: %s)", s, strings.Join(rowServices(), ", ")))
				}
				o.Sections[heading] = service
			}
			var err error
			if o.Known, err = load(); err != nil {
				return err
			}
			data, err := readArticle(cmd, args[0])
			if err != nil {
				return usage(err)
			}
			article, err := catalog.Import(bytes.NewReader(data), o)
			if err != nil {
				return usage(fmt.Errorf("%s: %w", args[0], err))
			}
			rows, update := article.Update(o.Known)
			if err := catalog.Encode(cmd.OutOrStdout(), rows); err != nil {
				return err
			}
			return reportImport(cmd.ErrOrStderr(), args[0], article, update, o.Known, len(rows))
		},
	}
	cmd.Flags().StringArrayVar(&sections, "section", nil, "count new hosts below a heading for a service: `HEADING=SERVICE` (repeatable)")
	return cmd
}

// rowServices are the ids that a row can count for.
func rowServices() []string {
	return slices.DeleteFunc(serviceIDs(), func(id string) bool { return id == catalog.Other })
}

// reportImport says what import has decided, a line each.
func reportImport(w io.Writer, file string, a *catalog.Article, u catalog.Update, known []catalog.Row, total int) error {
	var b strings.Builder
	hosts := map[string]bool{}
	for _, r := range a.Rows {
		hosts[r.Host] = true
	}
	fmt.Fprintf(&b, "%s: %s, %s (%s)\n", file, plural(len(a.Rows), "row", "rows"), plural(len(hosts), "host", "hosts"), a.Rows[0].Source)
	for _, h := range a.Unknown {
		as := "a section of its own; known hosts keep their service"
		if h.Section != "" {
			as = fmt.Sprintf("read as %q", h.Section)
		}
		fmt.Fprintf(&b, "unknown heading %q: %s, %s\n", h.Heading, plural(h.Rows, "row", "rows"), as)
	}
	for _, n := range a.New {
		fmt.Fprintf(&b, "new: %s counts for %s: %s\n", n.Host, n.Service, n.Why)
	}
	list := func(what string, rows []catalog.Row) {
		for _, r := range rows {
			fmt.Fprintf(&b, "%s: %s (%s)\n", what, r.Host, r.Service)
		}
	}
	for _, c := range catalog.Diff(known, a.Rows) {
		if c.Kind == catalog.Moved {
			fmt.Fprintf(&b, "moved: %s (%s): %s → %s\n", c.New.Host, c.New.Service, c.Cells[0].Old, c.Cells[0].New)
		}
	}
	list("retired", u.Retired)
	list("listed again", u.Restored)
	if n := len(u.Newer); n > 0 {
		fmt.Fprintf(&b, "%s newer than this edition kept\n", plural(n, "row", "rows"))
	}
	if u.Alone {
		b.WriteString("no host of the catalogue is listed: its rows are left out\n")
	} else {
		fmt.Fprintf(&b, "%s written\n", plural(total, "row", "rows"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxArticle bounds what is read into memory; Apple's article is far smaller.
const maxArticle = 16 << 20

// readArticle reads the article, or a catalogue, from a file or standard input.
func readArticle(cmd *cobra.Command, path string) ([]byte, error) {
	data, err := readInput(cmd, path, maxArticle+1)
	if err == nil && len(data) > maxArticle {
		err = fmt.Errorf("%s: larger than 16 MB", path)
	}
	return data, err
}

// readInput reads a file, or standard input for "-", up to limit bytes.
func readInput(cmd *cobra.Command, path string, limit int64) ([]byte, error) {
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, limit))
}

func joined[T any](list []T, sep string) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = fmt.Sprint(v)
	}
	return strings.Join(parts, sep)
}
