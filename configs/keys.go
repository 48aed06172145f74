package configs

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// fieldName returns the key that sets a field; "" if the tag is missing or "-".
func fieldName(f reflect.StructField) string {
	if name := f.Tag.Get("koanf"); name != "-" {
		return name
	}
	return ""
}

// fieldNames are the keys of a struct type, in its order.
func fieldNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		if name := fieldName(t.Field(i)); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// fieldType is the type of a key of a struct type; nil where there is none.
func fieldType(t reflect.Type, name string) reflect.Type {
	for i := range t.NumField() {
		if tag := fieldName(t.Field(i)); tag != "" && tag == name {
			return t.Field(i).Type
		}
	}
	return nil
}

// A knownKey is a key whose name is fixed: all but those below lists and
// sections of names.
type knownKey struct {
	path string
	t    reflect.Type
}

// env is the variable that sets the key.
func (k knownKey) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
}

// knownKeys are all of Config's, sections before what is in them.
var knownKeys = func() []knownKey {
	var keys []knownKey
	var add func(t reflect.Type, path string)
	add = func(t reflect.Type, path string) {
		for _, name := range fieldNames(t) {
			k := knownKey{join(path, name), fieldType(t, name)}
			keys = append(keys, k)
			if kindOf(k.t) == reflect.Struct {
				add(k.t, k.path)
			}
		}
	}
	add(reflect.TypeFor[Config](), "")
	return keys
}()

// unknownKey says what may have been meant by name, which is no key of t. at is
// the path of the section.
func unknownKey(t reflect.Type, at, name string) string {
	names := fieldNames(t)
	hint := ""
	meant := nearest(name, names)
	if others := elsewhere(at, name); len(others) == 1 && (meant == "" || distance(name, meant) > 1) {
		meant = others[0]
	}
	if meant != "" {
		hint = fmt.Sprintf("; did you mean %s?", meant)
	}
	slices.Sort(names)
	return fmt.Sprintf("unknown key%s (allowed: %s)", hint, strings.Join(names, ", "))
}

// elsewhere finds keys of that name in other sections, where wrong indentation
// may have put it.
func elsewhere(at, name string) []string {
	var paths []string
	for _, k := range knownKeys {
		if k.path != join(at, name) && (k.path == name || strings.HasSuffix(k.path, "."+name)) {
			paths = append(paths, k.path)
		}
	}
	return paths
}

// nearest returns the candidate that s most likely is a slip of; "" for none.
func nearest(s string, candidates []string) string {
	best, limit := "", max(1, (len(s)+2)/3)
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d < limit || d == limit && best == "" {
			best, limit = c, d
		}
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
