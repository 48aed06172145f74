package configs

import (
	"reflect"
	"regexp"
	"strings"
)

// withoutEffect are the keys that are accepted before what they configure
// exists. Whoever builds that deletes the row. A key stands for all below it;
// [] for any index.
var withoutEffect = []struct {
	key     string
	message string
}{
	{key: "proxy.tls_listen", message: "has no effect yet: the proxy does not listen with TLS"},
	{key: "tls", message: "has no effect yet: nothing is served with TLS"},
}

var index = regexp.MustCompile(`\[\d+\]`)

// warnings are the rows of withoutEffect that the user has set.
func (l *Loaded) warnings() Problems {
	var problems Problems
	told := map[string]bool{}
	leaves(reflect.ValueOf(l.Config).Elem(), "", func(key string, v reflect.Value) {
		if v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0 || !l.isSet(key) {
			return
		}
		pattern := index.ReplaceAllString(key, "[]")
		for _, row := range withoutEffect {
			at := key
			if strings.HasPrefix(pattern, row.key+".") {
				at = key[:len(row.key)]
			} else if pattern != row.key {
				continue
			}
			if !told[at] {
				told[at] = true
				problems = append(problems, problem(l.root, at+": "+row.message))
			}
		}
	})
	problems.sort()
	return problems
}
