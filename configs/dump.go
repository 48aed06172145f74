package configs

import (
	"bufio"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"espalier/web/api"
)

// Dump writes the configuration in force as YAML that Load reads, with the
// origin of every value in a comment. Passwords and the like are replaced by
// xxxxx.
func (l *Loaded) Dump(w io.Writer) error {
	d := &dumper{w: bufio.NewWriter(w)}
	d.fields(reflect.ValueOf(l.Config).Elem(), l.root, "", "")
	return d.w.Flush()
}

// Settings returns the values in force, as Dump writes them.
func (l *Loaded) Settings() []api.Setting {
	var list []api.Setting
	leaves(reflect.ValueOf(l.Config).Elem(), "", func(key string, v reflect.Value) {
		if n := l.lookup(key); n != nil { // else it was left out
			list = append(list, api.Setting{Key: key, Value: flow(v, key), Origin: n.origin()})
		}
	})
	return list
}

type dumper struct{ w *bufio.Writer }

// fields writes a section's keys, each on a line that begins with indent.
func (d *dumper) fields(v reflect.Value, n *node, key, indent string) {
	if v.Kind() == reflect.Map {
		for _, name := range sortedKeys(v) {
			d.entry(v.MapIndex(reflect.ValueOf(name)), n.fields[name], name, join(key, name), indent)
		}
		return
	}
	for i := range v.NumField() {
		name := fieldName(v.Type().Field(i))
		// A field without a node was left out of a rule, a list or a site.
		if child := n.fields[name]; child != nil {
			d.entry(v.Field(i), child, name, join(key, name), indent)
			indent = strings.ReplaceAll(indent, "-", " ")
		}
	}
}

func (d *dumper) entry(v reflect.Value, n *node, name, key, indent string) {
	t := v.Type()
	start := indent + plain(name) + ":"
	indent = strings.ReplaceAll(indent, "-", " ")
	switch kind := kindOf(t); {
	case kind == reflect.Struct && len(n.fields) > 0, kind == reflect.Map && v.Len() > 0:
		fmt.Fprintln(d.w, start)
		d.fields(v, n, key, indent+"  ")
	case kind == reflect.Struct:
		fmt.Fprintf(d.w, "%s {}  # %s\n", start, n.origin())
	case kind == reflect.Slice && v.Len() > 0 && kindOf(t.Elem()) == reflect.Struct:
		fmt.Fprintln(d.w, start)
		for i := range v.Len() {
			d.fields(v.Index(i), n.items[i], fmt.Sprintf("%s[%d]", key, i), indent+"  - ")
		}
	default:
		fmt.Fprintf(d.w, "%s %s  # %s\n", start, flow(v, key), strings.Join(strings.Fields(n.origin()), " "))
	}
}

// flow writes a value in one line.
func flow(v reflect.Value, key string) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return formatDuration(x)
	case fmt.Stringer:
		return plain(x.String())
	case string:
		return plain(redact(key, x))
	}
	var parts []string
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			parts = append(parts, flow(v.Index(i), key))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Map:
		for _, name := range sortedKeys(v) {
			parts = append(parts, plain(name)+": "+flow(v.MapIndex(reflect.ValueOf(name)), join(key, name)))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(v.Interface())
}

var (
	plainText = regexp.MustCompile(`^([A-Za-z/][A-Za-z0-9_./-]*|[0-9]+[KMGT]?i?B)$`)
	notPlain  = []string{"true", "false", "null", "nan", "inf", "yes", "no", "on", "off", "y", "n"}
	secretKey = regexp.MustCompile(`(?i)((password|secret|token|authorization|cookie|api[-_]?key|mac[-_]?key|(^|[._-])(pass|passwd|pw))$|^tls\.acme\.dns\.settings(\.key)?$)`)
)

// plain writes a text without quotes where no YAML reader could take it for
// anything else.
func plain(s string) string {
	if plainText.MatchString(s) && !slices.Contains(notPlain, strings.ToLower(s)) {
		return s
	}
	return quote(s)
}

// nextURL is where another URL of a comma list begins.
var nextURL = regexp.MustCompile(`(,\s*)[A-Za-z][A-Za-z0-9+.-]*://`)

// hidden stands in place of a secret.
const hidden = "xxxxx"

// redact hides the passwords in a URL or a comma list of them, and a value whose
// key says that it is secret.
func redact(key, s string) string {
	if secretKey.MatchString(key) && s != "" {
		return hidden
	}
	var b strings.Builder
	done := 0
	for _, at := range nextURL.FindAllStringSubmatchIndex(s, -1) {
		b.WriteString(redactURL(s[done:at[2]]) + s[at[2]:at[3]])
		done = at[3]
	}
	return b.String() + redactURL(s[done:])
}

func redactURL(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || !strings.Contains(rest, "@") {
		return s
	}
	if u, err := url.Parse(s); err == nil {
		return u.Redacted()
	}
	return scheme + "://" + hidden + rest[strings.LastIndexByte(rest, '@'):]
}

func sortedKeys(v reflect.Value) []string {
	var names []string
	for _, k := range v.MapKeys() {
		names = append(names, k.String())
	}
	slices.Sort(names)
	return names
}
