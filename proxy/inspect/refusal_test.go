package inspect

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
)

func TestRefusal(t *testing.T) {
	remote := func(a tls.AlertError) error { return &net.OpError{Op: "remote error", Err: a} }
	local := &net.OpError{Op: "local error", Err: tls.AlertError(20)}
	tests := []struct {
		name   string
		err    error
		plain  tls.AlertError
		reason string
		ground Ground
	}{
		{"unknown CA", remote(48), 0, "tls: unknown certificate authority", ByAlert},
		{"bad certificate", remote(42), 0, "tls: bad certificate", ByAlert},
		{"wrapped", fmt.Errorf("handshake: %w", remote(46)), 0, "tls: unknown certificate", ByAlert},
		{"an alert that is not encrypted", local, 48, "tls: unknown certificate authority", ByAlert},
		{"another alert", remote(80), 0, "tls: internal error", ByClosing},
		{"gives up before the certificate", remote(70), 0, "", ByClosing},
		{"comes again without an encrypted hello", remote(121), 0, "", ByClosing},
		{"closes", io.EOF, 0, "the client closed in the TLS handshake", ByClosing},
		{"resets", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, 0, "the client closed in the TLS handshake", ByClosing},
		{"cannot be decrypted", local, 0, "", ByClosing},
		{"takes too long", &net.OpError{Op: "read", Err: errors.New("i/o timeout")}, 0, "", ByClosing},
	}
	for _, tt := range tests {
		if reason, ground := Refusal(tt.err, tt.plain); reason != tt.reason || ground != tt.ground {
			t.Errorf("%s: %q, %s, want %q, %s", tt.name, reason, ground, tt.reason, tt.ground)
		}
	}
}

func TestPlainAlert(t *testing.T) {
	for in, want := range map[string]tls.AlertError{
		"\x15\x03\x03\x00\x02\x02\x30":                         48,
		"\x14\x03\x03\x00\x01\x01\x15\x03\x03\x00\x02\x02\x2a": 42, // behind a change of ciphers
		"\x15\x03\x03\x00\x02\x02":                             0,
		"\x15\x03\x03\x00\x13\x02\x30":                         0,
		"\x17\x03\x03\x00\x02\x02\x30":                         0,
		"":                                                     0,
	} {
		if got, ok := PlainAlert([]byte(in)); got != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v, want %d", in, got, ok, want)
		}
	}
}
