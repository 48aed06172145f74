package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/report"
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
	cmd := group("catalog", "Show, export, import and compare the catalogue of Apple's services",
		catalogList(rows), catalogExport(), catalogImport(rows), catalogDiff(rows))
	cmd.PersistentFlags().StringVar(&file, "catalog", "", "use the catalogue in `FILE` in place of the built-in one")
	_ = cmd.MarkPersistentFlagFilename("catalog", "yaml", "yml")
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
			rows, err := load()
			if err == nil && service != "" {
				err = oneOf("service", service, catalog.ServiceIDs())
			}
			if err != nil {
				return err
			}
			rows = slices.DeleteFunc(slices.Clone(rows), func(r catalog.Row) bool { return service != "" && r.Service != service })
			if asJSON {
				return catalog.Export(cmd.OutOrStdout(), "json", catalog.Selection{Rows: rows})
			}
			return report.Rows(report.NewScreen(cmd.OutOrStdout()), rows, service == "")
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "only the rows of this `SERVICE`")
	_ = cmd.RegisterFlagCompletionFunc("service", cobra.FixedCompletions(catalog.ServiceIDs(), cobra.ShellCompDirectiveNoFileComp))
	return withJSON(&asJSON, cmd)
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
				if heading == "" || !slices.Contains(rowServices(), service) {
					return usage(fmt.Errorf("--section: invalid %q (want HEADING=SERVICE; services: %s)", s, strings.Join(rowServices(), ", ")))
				}
				o.Sections[heading] = service
			}
			var err error
			if o.Known, err = load(); err != nil {
				return err
			}
			data, err := readInput(cmd, args[0], maxArticle)
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
			return report.Import(cmd.ErrOrStderr(), args[0], article, update, o.Known, len(rows))
		},
	}
	cmd.Flags().StringArrayVar(&sections, "section", nil, "count new hosts below a heading for a service: `HEADING=SERVICE` (repeatable)")
	return cmd
}

// rowServices are the ids that a row can count for.
func rowServices() []string {
	return slices.DeleteFunc(catalog.ServiceIDs(), func(id string) bool { return id == catalog.Other })
}

// maxArticle bounds what is read into memory; Apple's article is far smaller.
const maxArticle = 16 << 20

// readInput reads a file, or standard input for "-", of at most limit bytes.
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
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: larger than %d MB, the most that is read", path, limit>>20)
	}
	return data, err
}
