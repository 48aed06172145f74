package main

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"espalier/policy/catalog"
)

func catalogDiff(load func() ([]catalog.Row, error)) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff FILE",
		Short: "Show what an edition of Apple's article changes in the catalogue",
		Long: `Show what FILE has and the catalogue has not, and the reverse.

FILE is Apple's article in any form that import reads, or a catalogue as import
writes it; - is standard input. A row with the same host, ports, protocols,
systems and proxy mark below another heading has moved. The exit status is 0 if
they are the same, 1 if they differ.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			old, err := load()
			if err != nil {
				return err
			}
			rows, err := readRows(cmd, args[0], old)
			if err != nil {
				return usage(err)
			}
			changes := catalog.Diff(old, rows)
			if asJSON {
				err = writeChangesJSON(cmd.OutOrStdout(), changes)
			} else {
				err = writeChanges(newScreen(cmd.OutOrStdout()), changes, args[0])
			}
			if err == nil && len(changes) > 0 {
				return &exitError{code: exitNo}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

// readRows reads a catalogue, or else the article.
func readRows(cmd *cobra.Command, path string, known []catalog.Row) ([]catalog.Row, error) {
	data, err := readArticle(cmd, path)
	if err != nil {
		return nil, err
	}
	if ext := filepath.Ext(path); ext == ".yaml" || ext == ".yml" || looksLikeCatalogue(data) {
		return catalog.ParseFile(path, data)
	}
	article, err := catalog.Import(bytes.NewReader(data), catalog.Options{Known: known})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return article.Rows, nil
}

// looksLikeCatalogue reports whether the first line that is no comment begins a
// list of mappings.
func looksLikeCatalogue(data []byte) bool {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' {
			return bytes.HasPrefix(line, []byte("- ")) && bytes.Contains(line, []byte(": "))
		}
	}
	return false
}

func writeChangesJSON(w io.Writer, changes []catalog.Change) error {
	type change struct {
		Change  string               `json:"change"`
		Host    string               `json:"host"`
		Service string               `json:"service"`
		Cells   []catalog.CellChange `json:"cells"`
		Old     *catalog.Row         `json:"old"`
		New     *catalog.Row         `json:"new"`
	}
	list := []change{}
	for _, c := range changes {
		cells := c.Cells
		if cells == nil {
			cells = []catalog.CellChange{}
		}
		list = append(list, change{c.Kind, c.Row().Host, c.Row().Service, cells, c.Old, c.New})
	}
	return writeJSON(w, list)
}

func writeChanges(s screen, changes []catalog.Change, file string) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintf(s, "%s and the catalogue have the same rows.\n", file)
		return err
	}
	t := table{head: []string{"CHANGE", "HOST", "SERVICE", "WHAT"}}
	n := map[string]int{}
	for _, c := range changes {
		n[c.Kind]++
		r, as := c.Row(), map[string]style{catalog.Added: green, catalog.Removed: red, catalog.Changed: yellow, catalog.Moved: dim}[c.Kind]
		t.add(cell{c.Kind, as}, cell{r.Host, plain}, cell{r.Service, plain}, cell{what(c), plain})
	}
	if err := t.write(s); err != nil {
		return err
	}
	sum := fmt.Sprintf("In %s and not in the catalogue: %s. In the catalogue and not there: %s. Different: %s.",
		file, plural(n[catalog.Added], "row", "rows"), plural(n[catalog.Removed], "row", "rows"), plural(n[catalog.Changed], "row", "rows"))
	if n := n[catalog.Moved]; n > 0 {
		sum += fmt.Sprintf(" Only below another heading: %s.", plural(n, "row", "rows"))
	}
	return s.paragraphs([]string{"", sum})
}

// what describes a change in a line.
func what(c catalog.Change) string {
	if c.Kind == catalog.Added || c.Kind == catalog.Removed {
		r := c.Row()
		parts := []string{joined(r.Ports, ",") + " " + joined(r.Transports, ",")}
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
		return strings.Join(parts, "; ")
	}
	var parts []string
	for _, d := range c.Cells {
		switch {
		case d.Cell == "until" && d.New == "":
			parts = append(parts, "retired "+d.Old+", listed there")
		case d.Cell == "until" && d.Old == "":
			parts = append(parts, "retired there "+d.New)
		default:
			parts = append(parts, fmt.Sprintf("%s: %s → %s", d.Cell, orNone(d.Old), orNone(d.New)))
		}
	}
	return strings.Join(parts, "; ")
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
