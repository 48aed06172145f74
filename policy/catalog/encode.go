package catalog

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Encode writes rows as the YAML that Parse reads, in the form of apple.yaml:
// two or three lines a row, a comment where a section begins. The rows must be
// valid, as Parse and Import leave them.
func Encode(w io.Writer, rows []Row) error {
	b := bufio.NewWriter(w)
	section := ""
	for i, r := range rows {
		if i == 0 || r.Section != section {
			section = r.Section
			if i > 0 {
				b.WriteByte('\n')
			}
			fmt.Fprintf(b, "# %s\n", section)
		}
		line := pairs{b: b, sep: "- {"}
		line.put("host", scalarYAML(r.Host))
		line.put("ports", listYAML(r.Ports))
		line.put("transports", listYAML(r.Transports))
		if len(r.Systems) > 0 {
			line.put("systems", listYAML(r.Systems))
		}
		line.put("proxy", scalarYAML(string(r.Proxy)))
		line.sep = ",\n   "
		line.text("purpose", r.Purpose)
		line.put("service", scalarYAML(r.Service))
		line.put("section", scalarYAML(r.Section))
		line.put("source", scalarYAML(r.Source))
		line.sep = ",\n   "
		line.text("since", r.Since)
		line.text("until", r.Until)
		if len(r.Unknown) > 0 {
			line.put("unknown", listYAML(r.Unknown))
		}
		line.text("note", r.Note)
		b.WriteString("}\n")
	}
	return b.Flush()
}

// pairs writes the pairs of a YAML flow mapping.
type pairs struct {
	b   *bufio.Writer
	sep string // stands before the next pair
}

func (f *pairs) put(key, value string) {
	f.b.WriteString(f.sep + key + ": " + value)
	f.sep = ", "
}

func (f *pairs) text(key, value string) {
	if value != "" {
		f.put(key, scalarYAML(value))
	}
}

func listYAML[T any](list []T) string { return "[" + join(list, ", ") + "]" }

// plain matches text that means itself in a YAML flow mapping, to readers of
// YAML 1.1 as well.
var (
	plain  = regexp.MustCompile(`^\pL(?:[\pL\d_/().+'&;-]| [\pL\d(+&-])*$`)
	notYes = regexp.MustCompile(`(?i)^(?:y|yes|n|no|on|off|true|false|null)$`)
	year   = regexp.MustCompile(`^\d{4}-\d{2}$`)
)

// scalarYAML writes s so that it is read back as the same text.
func scalarYAML(s string) string {
	if plain.MatchString(s) && !notYes.MatchString(s) || year.MatchString(s) {
		return s
	}
	// A JSON string is a YAML double-quoted one.
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}
