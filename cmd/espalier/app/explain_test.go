package app

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"espalier/configs"
	"espalier/policy"
	"espalier/web/explain"
)

// Clients without the CA are exempt as far as the configuration says.
func TestExplainWithoutCA(t *testing.T) {
	const learnt = `[{"host":"pinned.example","state":"automatic","clients":[
		{"client":"10.0.0.1","until":"2126-01-01T00:00:00Z","evidence":"alert","without_ca":true}]}]`
	for _, tt := range []struct{ withoutCA, rule string }{
		{policy.WithoutCATunnel, policy.RuleWithoutCA},
		{policy.WithoutCADeny, policy.RuleInspect},
	} {
		t.Run(tt.withoutCA, func(t *testing.T) {
			loaded, err := configs.Load(configs.Options{})
			if err != nil {
				t.Fatal(err)
			}
			cfg := loaded.Config
			cfg.Data = t.TempDir()
			cfg.Inspect.Mode, cfg.Inspect.WithoutCA = "all", tt.withoutCA
			if err := os.WriteFile(filepath.Join(cfg.Data, "inspect-exceptions.json"), []byte(learnt), 0o600); err != nil {
				t.Fatal(err)
			}
			e, err := NewExplainer(cfg)
			if err != nil {
				t.Fatal(err)
			}
			x, err := e.Explain(explain.Question{Target: "pinned.example", Client: netip.MustParseAddr("10.0.0.1")})
			if err != nil {
				t.Fatal(err)
			}
			if x.Rule != tt.rule {
				t.Errorf("rule %q, want %q", x.Rule, tt.rule)
			}
		})
	}
}
