package inspect

import (
	"bytes"
	"crypto/tls"
	"strings"
	"testing"
)

func TestSniff(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want Kind
	}{
		{"nothing", "", More},
		{"a ClientHello", string(hello(t, &tls.Config{ServerName: "a.example"})), TLS},
		{"a ClientHello that has begun", "\x16\x03\x01", More},
		{"TLS that is no ClientHello", "\x16\x03\x01\x00\x04\x02\x00\x00\x00", BadTLS},
		{"a record of another type", "\x17\x03\x03\x00\x01a", BadTLS},
		{"an alert before a ClientHello", "\x15\x03\x01\x00\x02\x01\x5a" + string(hello(t, &tls.Config{ServerName: "a.example"})), BadTLS},
		{"a change of ciphers before a ClientHello", "\x14\x03\x01\x00\x01\x01\x16\x03\x01", BadTLS},
		{"a record that has begun", "\x15", More},
		{"a ClientHello as SSL 2.0 has it", "\x80\x1c\x01\x03\x03\x00\x03", BadTLS},
		{"a ClientHello as SSL 2.0 has it, that has begun", "\x80\x1c\x01", More},
		{"a remote procedure call", "\x80\x00\x00\x28", Other},
		{"a request", "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n", HTTP},
		{"a request of HTTP/1.0 with a bare line feed", "GET / HTTP/1.0\n", HTTP},
		{"a method of an extension", "M-SEARCH * HTTP/1.1\r\n", HTTP},
		{"a method that has begun", "GE", More},
		{"a line that has begun", "GET /abc HTT", More},
		{"HTTP/2 with prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Other},
		{"SSH", "SSH-2.0-OpenSSH_9.2\r\n", Other},
		{"mail", "EHLO client.example\r\n", Other},
		{"a word", "QUIT\r\n", Other},
		{"a method too long", strings.Repeat("A", 21), Other},
		{"a line too long", "GET /" + strings.Repeat("a", maxLine), Other},
		{"control characters", "GET /\x00", Other},
		{"lower case", "get / HTTP/1.1\r\n", HTTP},
		{"binary", "\x00\x01\x02", Other},
		{"an empty line", "\r\nGET / HTTP/1.1\r\n", HTTP},
		{"empty lines alone", "\r\n\n", More},
		{"a binary protocol", "\x16\x00\x01", Other},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, h := Sniff([]byte(tt.in)); got != tt.want || (h != nil) != (got == TLS) {
				t.Errorf("kind %d, want %d; hello %v", got, tt.want, h)
			}
		})
	}
}

// What is said of a stream stays said when more of it arrives, and something is
// said in the end.
func FuzzSniff(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "a.example"}))
	f.Add(inRecords(hello(f, &tls.Config{ServerName: "a.example"}), 60))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("SSH-2.0-x\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		told := More
		for n := 0; n <= len(b); n += 1 + n/8 {
			kind, _ := Sniff(b[:n])
			if told != More && kind != told {
				t.Fatalf("kind %d after %d bytes, %d before", kind, n, told)
			}
			told = kind
		}
		long := append(bytes.Clone(b), make([]byte, 2*MaxHello)...)
		if kind, _ := Sniff(long); kind == More {
			t.Fatal("nothing is said of 32 KB")
		}
	})
}
