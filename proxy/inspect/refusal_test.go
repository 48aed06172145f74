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
		sure   bool
	}{
		{"unknown CA", remote(48), 0, "tls: unknown certificate authority", true},
		{"bad certificate", remote(42), 0, "tls: bad certificate", true},
		{"wrapped", fmt.Errorf("handshake: %w", remote(46)), 0, "tls: unknown certificate", true},
		{"an alert that is not encrypted", local, 48, "tls: unknown certificate authority", true},
		{"another alert", remote(80), 0, "tls: internal error", false},
		{"gives up before the certificate", remote(70), 0, "", false},
		{"comes again without an encrypted hello", remote(121), 0, "", false},
		{"closes", io.EOF, 0, "the client closed in the TLS handshake", false},
		{"resets", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, 0, "the client closed in the TLS handshake", false},
		{"cannot be decrypted", local, 0, "", false},
		{"takes too long", &net.OpError{Op: "read", Err: errors.New("i/o timeout")}, 0, "", false},
	}
	for _, tt := range tests {
		if reason, sure := Refusal(tt.err, tt.plain); reason != tt.reason || sure != tt.sure {
			t.Errorf("%s: %q, %v, want %q, %v", tt.name, reason, sure, tt.reason, tt.sure)
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
