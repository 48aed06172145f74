package inspect

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
)

// hello records what a client with cfg sends first.
func hello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		_ = tls.Client(client, cfg).HandshakeContext(context.Background()) // it fails when the pipe is closed
	}()
	var head [5]byte
	if _, err := io.ReadFull(server, head[:]); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	server.Close()
	return append(head[:], body...)
}

// inRecords cuts the message of a hello into records of size bytes.
func inRecords(b []byte, size int) []byte {
	var out []byte
	for message := b[5:]; len(message) > 0; {
		n := min(size, len(message))
		out = append(append(out, 22, 3, 1, byte(n>>8), byte(n)), message[:n]...)
		message = message[n:]
	}
	return out
}

func TestParseHello(t *testing.T) {
	common := hello(t, &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}})
	bare := hello(t, &tls.Config{InsecureSkipVerify: true})
	old := hello(t, &tls.Config{ServerName: "old.example", MaxVersion: tls.VersionTLS12})
	both := []string{"h2", "http/1.1"}
	tests := []struct {
		name string
		in   []byte
		want Hello
		err  error
	}{
		{"name and protocols", common, Hello{ServerName: "www.example.com", Protocols: both}, nil},
		{"no name", bare, Hello{}, nil},
		{"TLS 1.2", old, Hello{ServerName: "old.example"}, nil},
		{"more behind it", append(bytes.Clone(common), "more"...), Hello{ServerName: "www.example.com", Protocols: both}, nil},
		{"cut into records", inRecords(common, 100), Hello{ServerName: "www.example.com", Protocols: both}, nil},
		{"cut into single bytes", inRecords(common, 1), Hello{ServerName: "www.example.com", Protocols: both}, nil},
		{"nothing yet", nil, Hello{}, ErrShort},
		{"one byte", common[:1], Hello{}, ErrShort},
		{"within the record's header", common[:4], Hello{}, ErrShort},
		{"within the message", common[:len(common)-1], Hello{}, ErrShort},
		{"between records", inRecords(common, 100)[:105], Hello{}, ErrShort},
		{"SSH", []byte("SSH-2.0-OpenSSH"), Hello{}, errNotTLS},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), Hello{}, errNotTLS},
		{"another version", []byte{22, 2, 0, 0, 10}, Hello{}, errNotTLS},
		{"an empty record", []byte{22, 3, 1, 0, 0}, Hello{}, errNotTLS},
		{"a record larger than any", []byte{22, 3, 1, 0xff, 0xff}, Hello{}, errNotTLS},
		{"a ServerHello", []byte{22, 3, 1, 0, 4, 2, 0, 0, 0}, Hello{}, errNotHello},
		{"a message larger than any", []byte{22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff}, Hello{}, errBadHello},
		{"an empty message", []byte{22, 3, 1, 0, 4, 1, 0, 0, 0}, Hello{}, errBadHello},
		{"a record of something else within", append(inRecords(common, 100)[:105], 23, 3, 3), Hello{}, errNotTLS},
		{"two names", withExtensions(sni("a.example", "b.example")), Hello{}, errBadHello},
		{"an empty name", withExtensions(sni("")), Hello{}, errBadHello},
		{"the extension twice", withExtensions(append(sni("a.example"), sni("b.example")...)), Hello{}, errBadHello},
		{"an extension cut short", withExtensions([]byte{0, 0, 0, 9, 0}), Hello{}, errBadHello},
		{"an encrypted hello", withExtensions(append(sni("outer.example"), 0xfe, 0x0d, 0, 1, 0)), Hello{ServerName: "outer.example", Encrypted: true}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseHello(tt.in)
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("%+v, want %+v", *got, tt.want)
			}
		})
	}
}

func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, 0, byte(len(n)>>8), byte(len(n))), n...)
	}
	n := len(list)
	return append([]byte{0, 0, byte((n + 2) >> 8), byte(n + 2), byte(n >> 8), byte(n)}, list...)
}

// withExtensions is a hello that has nothing but extensions.
func withExtensions(ext []byte) []byte {
	m := append([]byte{3, 3}, make([]byte, 32)...)
	m = append(m, 0, 0, 2, 0x13, 1, 1, 0, byte(len(ext)>>8), byte(len(ext)))
	m = append(m, ext...)
	m = append([]byte{1, 0, byte(len(m) >> 8), byte(len(m))}, m...)
	return append([]byte{22, 3, 1, byte(len(m) >> 8), byte(len(m))}, m...)
}

// What ParseHello says of a hello is what crypto/tls says of it: a server that
// decides by one name and answers to another could be tricked.
func FuzzParseHello(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2"}}))
	f.Add(hello(f, &tls.Config{InsecureSkipVerify: true}))
	f.Add(inRecords(hello(f, &tls.Config{ServerName: "a.example"}), 60))
	f.Add(withExtensions(append(sni("outer.example"), 0xfe, 0x0d, 0, 1, 0)))
	f.Add(withExtensions(sni("a.example", "b.example")))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseHello(b)
		if (got == nil) != (err != nil) {
			t.Fatalf("%v and error %v", got, err)
		}
		var theirs *tls.ClientHelloInfo
		server := tls.Server(&readOnce{Reader: bytes.NewReader(b)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			theirs = h
			return nil, errors.New("enough")
		}})
		_ = server.Handshake() // only what it has read counts
		if theirs == nil {
			return
		}
		if err != nil {
			// What only ParseHello refuses is answered by nobody.
			return
		}
		if theirs.ServerName != strings.TrimSuffix(got.ServerName, ".") && theirs.ServerName != got.ServerName {
			t.Errorf("server name %q, crypto/tls says %q", got.ServerName, theirs.ServerName)
		}
		if len(theirs.SupportedProtos)+len(got.Protocols) > 0 && !reflect.DeepEqual(theirs.SupportedProtos, got.Protocols) {
			t.Errorf("protocols %q, crypto/tls says %q", got.Protocols, theirs.SupportedProtos)
		}
	})
}

// readOnce is a connection that has b to read and takes anything.
type readOnce struct {
	net.Conn
	io.Reader
}

func (c *readOnce) Read(p []byte) (int, error)  { return c.Reader.Read(p) }
func (c *readOnce) Write(p []byte) (int, error) { return len(p), nil }
func (c *readOnce) Close() error                { return nil }
