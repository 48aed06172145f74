package pac

import (
	"testing"

	"espalier/policy"
	"espalier/policy/catalog"
)

// distinct are routes that tell all classes apart.
var distinct = Routes{
	Apple:         []string{"proxy", "direct"},
	AppleUnmarked: []string{"direct", "proxy"},
	Internal:      []string{"direct"},
	Default:       []string{"proxy"},
}

// standard are the routes of the default configuration.
var standard = Routes{
	Apple:         []string{"proxy", "direct"},
	AppleUnmarked: []string{"proxy", "direct"},
	Internal:      []string{"direct"},
	Default:       []string{"proxy"},
}

// appleSet compiles the embedded catalogue with the options of apple.
func appleSet(t testing.TB, apple policy.Apple) *catalog.Set {
	t.Helper()
	return policyOf(t, policy.Config{Apple: apple}).Apple()
}

func policyOf(t testing.TB, cfg policy.Config) *policy.Policy {
	t.Helper()
	p, err := policy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func compile(t testing.TB, cfg Config, apple policy.Apple) *PAC {
	t.Helper()
	return compileFor(t, cfg, policy.Config{Apple: apple})
}

// compileFor compiles a script for a policy.
func compileFor(t testing.TB, cfg Config, pol policy.Config) *PAC {
	t.Helper()
	p, err := Compile(cfg, policyOf(t, pol))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func script(t testing.TB, p *PAC, site string, proxies ...string) *Script {
	t.Helper()
	s, err := p.Script(site, proxies)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
