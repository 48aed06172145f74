package configs

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// isText reports whether a value of type t is written as a text that t, or this
// package, parses: a duration, a size.
func isText(t reflect.Type) bool {
	return t == durationType || reflect.PointerTo(t).Implements(unmarshalerType)
}

// parseText parses a text of such a type.
func parseText(t reflect.Type, text string) (any, error) {
	if t == durationType {
		return ParseDuration(text)
	}
	v := reflect.New(t)
	if err := v.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
		return nil, err
	}
	return v.Elem().Interface(), nil
}

// ParseDuration parses a Go duration, which may begin with whole days: 90s,
// 24h, 30d, 1d12h. A number other than 0 needs a unit.
func ParseDuration(s string) (time.Duration, error) {
	const example = "a duration such as 30s, 5m, 24h or 30d"
	if s == "0" {
		return 0, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("%s has no unit (wanted: %s)", s, example)
	}
	bad := fmt.Errorf("%q is no duration (wanted: %s)", s, example)
	rest, negative := strings.CutPrefix(s, "-")
	var total time.Duration
	if days, tail, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 31)
		if err != nil || n > math.MaxInt64/uint64(24*time.Hour) {
			return 0, bad
		}
		total, rest = time.Duration(n)*24*time.Hour, tail
	}
	if rest != "" || total == 0 && !strings.HasSuffix(s, "d") {
		d, err := time.ParseDuration(rest)
		if err != nil || strings.ContainsAny(rest[:1], "+-") || total+d < total {
			return 0, bad
		}
		total += d
	}
	if negative {
		total = -total
	}
	return total, nil
}

// formatDuration writes d as ParseDuration reads it, as short as may be.
func formatDuration(d time.Duration) string {
	if day := 24 * time.Hour; d > day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// found names what stands where something else is wanted for key.
func found(key string, n ast.Node) string {
	switch v := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return "the text " + quote(shorten(redact(key, v.Value)))
	case *ast.LiteralNode:
		return "a text of several lines"
	}
	text, ok := scalarText(n)
	if !ok {
		return "something else"
	}
	return shorten(redact(key, text))
}

// wanted names what a value of type t looks like.
func wanted(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 30s, 5m, 24h or 30d"
	case isText(t):
		return "a single value"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		if kindOf(t.Elem()) == reflect.Struct {
			return "a list of sections with " + strings.Join(fieldNames(t.Elem()), ", ")
		}
		return "a list"
	case reflect.Struct:
		return "a section with " + strings.Join(fieldNames(t), ", ")
	case reflect.Map:
		switch {
		case t.Elem().Kind() == reflect.Struct:
			return "a section of names, each with " + strings.Join(fieldNames(t.Elem()), ", ")
		case t.Elem().Kind() == reflect.String:
			return "a section such as {name: value}"
		}
		return "a section"
	}
	return "a whole number"
}

// suggestion says how what was found for key may have been meant.
func suggestion(key string, n ast.Node, t reflect.Type) string {
	text, ok := scalarText(n)
	if !ok || len(text) > 80 || strings.Contains(text, "\n") || text != redact(key, text) {
		return ""
	}
	switch t.Kind() {
	case reflect.Slice:
		if kindOf(t.Elem()) == reflect.Struct || text == "" {
			return ""
		}
		if t.Elem().Kind() == reflect.String {
			text = quote(text)
		}
		return " (write [" + text + "])"
	case reflect.String:
		return " (write " + quote(text) + ")"
	case reflect.Bool:
		switch strings.ToLower(text) {
		case "yes", "on", "true", "y", "1":
			return " (write true)"
		case "no", "off", "false", "n", "0":
			return " (write false)"
		}
	case reflect.Int, reflect.Uint16:
		if _, err := strconv.ParseUint(text, 10, 64); err == nil {
			return " (write " + text + " without quotes)"
		}
	}
	return ""
}

func shorten(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// quote returns s in double quotes as YAML reads them.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil { // never for a string
		return strconv.Quote(s)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
