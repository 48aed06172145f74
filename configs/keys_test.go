package configs

import (
	"reflect"
	"testing"
)

func TestRestartKeys(t *testing.T) {
	one, err := Load(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		set  []string
		want []string
	}{
		{[]string{"proxy.tls_listen=", "log.level=debug", "proxy.clients=private", "proxy.ports=443", "apple.wide=false"}, nil},
		{[]string{"data=/other"}, []string{"data", "log.access.file", "log.store.path"}},
		{[]string{"web.admin=127.0.0.1:1", "proxy.listen=:3129,:3130", "log.access.rotate=1GB"}, []string{"proxy.listen", "log.access.rotate", "web.admin"}},
	} {
		two, err := Load(Options{Set: x.set})
		if err != nil {
			t.Fatal(err)
		}
		if got := RestartKeys(one.Config, two.Config); !reflect.DeepEqual(got, x.want) {
			t.Errorf("%v: got %v, want %v", x.set, got, x.want)
		}
	}
}

// Every variable sets one key, and every field has one or is tagged "-".
func TestKnownKeys(t *testing.T) {
	seen := map[string]string{}
	for _, k := range knownKeys {
		if other, dup := seen[k.env()]; dup {
			t.Errorf("%s sets %s and %s", k.env(), other, k.path)
		}
		seen[k.env()] = k.path
	}
	var check func(t reflect.Type, path string)
	check = func(typ reflect.Type, path string) {
		switch {
		case kindOf(typ) == reflect.Struct:
			for i := range typ.NumField() {
				switch tag := typ.Field(i).Tag.Get("koanf"); tag {
				case "-":
					continue
				case "":
					t.Errorf("%s: %s has no key", path, typ.Field(i).Name)
				}
				check(typ.Field(i).Type, join(path, typ.Field(i).Name))
			}
		case typ.Kind() == reflect.Map, typ.Kind() == reflect.Slice:
			check(typ.Elem(), path)
		}
	}
	check(reflect.TypeFor[Config](), "")
	for _, row := range needRestart {
		if _, _, err := flagKey(reflect.TypeFor[Config](), row); err != nil {
			t.Errorf("needRestart: %s: %v", row, err)
		}
	}
}
