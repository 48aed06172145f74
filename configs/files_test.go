package configs

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDataDir(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"valid", "data: state\n", "state"},
		{"wrong elsewhere", "data: state\nproxy: {listen: [nonsense]}\n", "state"},
		{"unknown key", "data: state\nprocksy: {}\n", "state"},
		{"not YAML", "data: [\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "espalier.yaml")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := DataDir(Options{File: file})
			if tc.want == "" {
				if err == nil {
					t.Errorf("got %q", got)
				}
				return
			}
			if want := filepath.Join(dir, tc.want); err != nil || got != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}
