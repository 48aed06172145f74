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
	cmd.AddCommand(catalogList(rows), catalogExport(rows), catalogImport(), catalogDiff(rows))
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

func catalogImport() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Turn Apple's article into a catalogue",
		Long: `Turn Apple's article for network administrators into a catalogue.

FILE is the article as plain text or HTML, in Swedish or English; - is standard
input. The catalogue is written as YAML, for apple.catalog in the configuration.
It has the rows of that edition and no others: what it no longer lists, though
older systems use it, is in the built-in catalogue only (espalier catalog diff).`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readArticle(cmd, args[0])
			if err != nil {
				return usage(err)
			}
			rows, err := catalog.Import(bytes.NewReader(data))
			if err != nil {
				return usage(fmt.Errorf("%s: %w", args[0], err))
			}
			if err := catalog.Encode(cmd.OutOrStdout(), rows); err != nil {
				return err
			}
			hosts := map[string]bool{}
			for _, r := range rows {
				hosts[r.Host] = true
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s, %s (%s)\n", args[0], plural(len(rows), "row", "rows"), plural(len(hosts), "host", "hosts"), rows[0].Source)
			return err
		},
	}
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
