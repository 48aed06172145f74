package profile

import (
	_ "embed"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// A schemaKey is a row of schema.tsv, which says what the columns hold.
type schemaKey struct {
	kind       string
	required   bool
	systems    map[string]string // first version by system; "-": none
	supervised []string          // systems
	allowed    []string          // empty: any
}

//go:embed schema.tsv
var schemaTable string

// schema has the keys of each payload type by path; the payload itself is at "".
var schema = sync.OnceValue(func() map[string]map[string]schemaKey {
	all := map[string]map[string]schemaKey{}
	for line := range strings.Lines(schemaTable) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "payload\t") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 7 {
			panic("schema.tsv: invalid row " + line)
		}
		k := schemaKey{kind: f[2], required: f[3] == "required", systems: map[string]string{}, supervised: strings.Fields(f[5]), allowed: strings.Fields(f[6])}
		for s := range strings.FieldsSeq(f[4]) {
			system, version, _ := strings.Cut(s, "=")
			k.systems[system] = version
		}
		if all[f[0]] == nil {
			all[f[0]] = map[string]schemaKey{}
		}
		all[f[0]][f[1]] = k
	}
	return all
})

// checkSchema returns an error for the first key of a payload, or of a profile as a
// whole, that is unknown to Apple's schema, has another type or a value that is not
// allowed, or is missing.
func checkSchema(dict map[string]any) error {
	kind, _ := dict["PayloadType"].(string)
	keys, ok := schema()[kind]
	if !ok || kind == "*" {
		return fmt.Errorf("PayloadType: unknown type %q", kind)
	}
	common := schema()["*"]
	if kind == "Configuration" {
		common = nil
	}
	find := func(path string) (schemaKey, bool) {
		if k, ok := keys[path]; ok {
			return k, true
		}
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			if k, ok := keys[path[:i]+".*"]; ok {
				return k, true
			}
		}
		k, ok := common[path]
		return k, ok && path != ""
	}
	if err := missing(common, "", dict); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	if err := checkDict(keys, find, "", dict); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return nil
}

// missing returns an error for the first required key that dict, at a path, lacks.
func missing(keys map[string]schemaKey, at string, dict map[string]any) error {
	for path, k := range keys {
		name, ok := strings.CutPrefix(path, at)
		if !ok || name == "" || !k.required || strings.ContainsAny(name, ".[") {
			continue
		}
		if _, there := dict[name]; !there {
			return fmt.Errorf("%s: missing", path)
		}
	}
	return nil
}

func checkDict(keys map[string]schemaKey, find func(string) (schemaKey, bool), at string, dict map[string]any) error {
	if err := missing(keys, at, dict); err != nil {
		return err
	}
	for name, value := range dict {
		if err := checkValue(keys, find, at+name, value); err != nil {
			return err
		}
	}
	return nil
}

func checkValue(keys map[string]schemaKey, find func(string) (schemaKey, bool), path string, value any) error {
	k, ok := find(path)
	if !ok {
		return fmt.Errorf("%s: unknown key", path)
	}
	if got := plistType(value); got != k.kind {
		return fmt.Errorf("%s: is %s, must be %s", path, got, k.kind)
	}
	if len(k.allowed) > 0 && !slices.Contains(k.allowed, fmt.Sprint(value)) {
		return fmt.Errorf("%s: %v is not allowed", path, value)
	}
	switch k.kind {
	case "dictionary":
		if path == "PayloadContent[]" { // a payload, which is checked by itself
			return nil
		}
		return checkDict(keys, find, path+".", value.(map[string]any))
	case "array":
		list := reflect.ValueOf(value)
		for i := range list.Len() {
			if err := checkValue(keys, find, path+"[]", list.Index(i).Interface()); err != nil {
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
	case map[string]any:
		return "dictionary"
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
	}
	return fmt.Sprintf("%T", value)
}
