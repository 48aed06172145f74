package profile

import (
	_ "embed"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// A schemaKey is a row of schema.tsv, which says what the columns hold.
type schemaKey struct {
	kind                string
	required            bool
	systems, supervised []string
	allowed             []string // empty: any
}

// schemaKeys are the keys of a payload type by path; the payload itself is at "".
type schemaKeys map[string]schemaKey

//go:embed schema.tsv
var schemaTable string

// schema has the keys of each payload type.
var schema = sync.OnceValue(func() map[string]schemaKeys {
	all := map[string]schemaKeys{}
	for line := range strings.Lines(schemaTable) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || f[0] == "payload" {
			continue
		}
		if len(f) != 7 {
			panic("schema.tsv: invalid row " + line)
		}
		if all[f[0]] == nil {
			all[f[0]] = schemaKeys{}
		}
		all[f[0]][f[1]] = schemaKey{f[2], f[3] == "required", strings.Fields(f[4]), strings.Fields(f[5]), strings.Fields(f[6])}
	}
	common := all["*"] // the keys that each payload has
	delete(all, "*")
	for kind, own := range all {
		if kind != "Configuration" {
			all[kind] = maps.Clone(common)
			maps.Copy(all[kind], own)
		}
	}
	return all
})

// checkSchema returns an error for the first key of a payload, or of a profile as a
// whole, that is unknown to Apple's schema, has another type or a value that is not
// allowed, or is missing.
func checkSchema(dict map[string]any) error {
	kind, _ := dict["PayloadType"].(string)
	keys, ok := schema()[kind]
	if !ok {
		return fmt.Errorf("PayloadType: unknown type %q", kind)
	}
	if err := keys.checkDict("", dict); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return nil
}

// checkDict checks a dictionary whose keys have paths that begin with at.
func (keys schemaKeys) checkDict(at string, dict map[string]any) error {
	for path, k := range keys {
		name, below := strings.CutPrefix(path, at)
		if _, there := dict[name]; k.required && below && !there && !strings.ContainsAny(name, ".[") {
			return fmt.Errorf("%s: missing", path)
		}
	}
	for name, value := range dict {
		if err := keys.check(at+name, value); err != nil {
			return err
		}
	}
	return nil
}

func (keys schemaKeys) check(path string, value any) error {
	k, ok := keys[path]
	if !ok {
		k, ok = keys[path[:max(strings.LastIndexByte(path, '.'), 0)]+".*"]
	}
	if !ok {
		return fmt.Errorf("%s: unknown key", path)
	}
	if got := plistType(value); got != k.kind {
		return fmt.Errorf("%s: is %s, must be %s", path, got, k.kind)
	}
	if len(k.allowed) > 0 && !slices.Contains(k.allowed, fmt.Sprint(value)) {
		return fmt.Errorf("%s: %v is not allowed", path, value)
	}
	switch {
	case k.kind == "dictionary" && path != "PayloadContent[]": // a payload is checked by itself
		return keys.checkDict(path+".", value.(map[string]any))
	case k.kind == "array":
		for _, element := range reflect.ValueOf(value).Seq2() {
			if err := keys.check(path+"[]", element.Interface()); err != nil {
				return err
			}
		}
	}
	return nil
}

// plistType names the type that a value has in a property list.
func plistType(value any) string {
	switch value.(type) {
	case []byte:
		return "data"
	case time.Time:
		return "date"
	}
	switch v := reflect.ValueOf(value); {
	case v.Kind() == reflect.String:
		return "string"
	case v.Kind() == reflect.Bool:
		return "boolean"
	case v.CanInt(), v.CanUint():
		return "integer"
	case v.CanFloat():
		return "real"
	case v.Kind() == reflect.Slice:
		return "array"
	case v.Kind() == reflect.Map:
		return "dictionary"
	}
	return fmt.Sprintf("%T", value)
}
