package http2_test

import (
	"crypto/tls"
	"os"
	"os/exec"
	"strings"
	"testing"

	"espalier/proxy/http2"
)

// curl and nghttp2 take what the server says, with and without TLS.
func TestOtherClients(t *testing.T) {
	big := strings.Repeat("0123456789", 200_000)
	h := func(s *http2.Stream, r *http2.Request) {
		switch {
		case r.Method == "POST":
			_ = s.WriteHeaders(100, nil, false)
			echo(s, r)
		case r.Path == "/":
			_ = s.Answer(200, nil, []byte(big), true)
		default:
			short(s, r)
		}
	}
	for scheme, inside := range map[string]*tls.Config{"http": nil, "https": selfSigned(t)} {
		base := scheme + "://" + listen(t, inside, http2.Config{}, h).String()
		for _, tt := range []struct {
			name, stdin, want string
			args              []string
		}{
			{"curl", "", big, []string{"-sSk", "--http2-prior-knowledge", base + "/"}},
			{"curl", big, big, []string{"-sSk", "--http2-prior-knowledge", "--data-binary", "@-", "-H", "Expect: 100-continue", base + "/"}},
			{"nghttp", "", big, []string{"--no-verify-peer", base + "/"}},
			{"h2load", "", "2000 succeeded, 0 failed", []string{"-n", "2000", "-c", "4", "-m", "100", base + "/small"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				if _, err := exec.LookPath(tt.name); err != nil {
					if os.Getenv("CI") != "" {
						t.Fatal(err)
					}
					t.Skip(err)
				}
				cmd := exec.Command(tt.name, tt.args...)
				cmd.Stdin = strings.NewReader(tt.stdin)
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(string(out), tt.want) {
					t.Errorf("%v, %d bytes: %.300s", err, len(out), out)
				}
			})
		}
	}
}
