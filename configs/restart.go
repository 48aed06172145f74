package configs

import (
	"reflect"
	"slices"
	"strings"
)

// needRestart are the keys that a reload cannot apply: what is opened once, at
// the start. A key stands for all below it.
var needRestart = []string{
	"data",
	"proxy.listen",
	"proxy.tls_listen",
	"proxy.proxy_protocol",
	"proxy.idle_timeout",
	"proxy.max_tunnels",
	"proxy.max_tunnels_per_client",
	"log.access",
	"log.store",
	"web.public",
	"web.admin",
}

// RestartKeys returns the keys that differ between two configurations and that
// only a restart can apply, in the order of Config.
func RestartKeys(old, new *Config) []string {
	before := map[string]reflect.Value{}
	leaves(reflect.ValueOf(old).Elem(), "", func(key string, v reflect.Value) { before[key] = v })
	var keys []string
	leaves(reflect.ValueOf(new).Elem(), "", func(key string, v reflect.Value) {
		fixed := slices.ContainsFunc(needRestart, func(k string) bool {
			return key == k || strings.HasPrefix(key, k+".")
		})
		if fixed && !sameValue(before[key], v) {
			keys = append(keys, key)
		}
	})
	return keys
}

// sameValue compares leaves; an empty list equals none.
func sameValue(a, b reflect.Value) bool {
	if b.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
