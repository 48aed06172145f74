package proxyprotocol

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// v2 is a PROXY header of version 2.
func v2(command, family byte, rest string) string {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n")
	b = append(b, 0x20|command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(rest)))) + rest
}

const (
	proxied, local = 1, 0
	tcp4, tcp6     = 0x11, 0x21
	from4          = "\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\x40\x0c\x38" // 192.0.2.7:40000 to 198.51.100.1:3128
	from6          = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x9c\x40\x0c\x38"
	mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x07" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x01\x9c\x40\x0c\x38"
	line4 = "PROXY TCP4 192.0.2.7 198.51.100.1 40000 3128\r\n"
)

// The connection below, for the tunnel engine, begins behind the header.
func TestProxyProtocolUnwraps(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, line4+"rest"); err != nil {
		t.Fatal(err)
	}
	got, err := New([]string{"loopback"}, zap.NewNop(), nil).Listener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if a := got.RemoteAddr().String(); a != "192.0.2.7:40000" {
		t.Errorf("the client is %s", a)
	}
	below := got.(interface{ NetConn() net.Conn }).NetConn()
	b := make([]byte, 4)
	if n, err := below.Read(b); string(b[:n]) != "rest" {
		t.Errorf("received %q, %v", b[:n], err)
	}
}

// A header may come in pieces; what follows it stays.
func TestProxyHeaderInPieces(t *testing.T) {
	for _, tt := range []struct{ name, header, client string }{
		{"version 1", line4, "192.0.2.7:40000"},
		{"version 1, unknown", "PROXY UNKNOWN\r\n", "<nil>"},
		{"version 2", v2(proxied, tcp4, from4+"\x04\x00\x01x"), "192.0.2.7:40000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(tt.header+"rest")), 512)
			client, err := new(Balancers).readHeader(in)
			if err != nil || fmt.Sprint(client) != tt.client {
				t.Errorf("the client is %v, %v", client, err)
			}
			if rest, _ := io.ReadAll(in); string(rest) != "rest" {
				t.Errorf("%q is left", rest)
			}
		})
	}
}

func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{
		line4, "PROXY UNKNOWN\r\n", "PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "GET / HTTP/1.1\r\n", "PROXY \r", "\r\n",
		v2(proxied, tcp4, from4), v2(proxied, tcp6, from6+"\x04\x00\x01x"), v2(local, 0, "tail"), v2(proxied, 0x31, strings.Repeat("x", 216)),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bufio.NewReaderSize(bytes.NewReader(b), 512)
		client, err := new(Balancers).readHeader(in)
		if err != nil || client == nil {
			return
		}
		if a, err := netip.ParseAddrPort(client.String()); err != nil || a.Addr().Zone() != "" {
			t.Errorf("%q names the client %v", b, client)
		}
		if !bytes.HasPrefix(b, []byte("PROXY ")) && !bytes.HasPrefix(b, []byte("\r\n\r\n\x00\r\nQUIT\n")) {
			t.Errorf("%q was taken for a header", b)
		}
	})
}

// broken is a Reader that bufio panics about.
type broken struct{}

func (broken) Read([]byte) (int, error) { return -1, nil }

// Its mistakes cost that connection only.
func TestProxyHeaderPanics(t *testing.T) {
	panics := 0
	b := New([]string{"loopback"}, zap.NewNop(), func(any) { panics++ })
	if _, err := b.readHeader(bufio.NewReader(broken{})); err == nil || panics != 1 {
		t.Errorf("%v, after %d panics", err, panics)
	}
}

// A load balancer that is set up wrongly is told of once a minute.
func TestBadHeadersAreToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, ops := observer.New(zapcore.InfoLevel)
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		c := &conn{Conn: ours, Balancers: New([]string{"loopback"}, zap.New(core), nil)}
		for _, after := range []time.Duration{0, 59 * time.Second, time.Second, 59 * time.Second} {
			time.Sleep(after)
			c.tell(io.EOF)
		}
		if n := ops.Len(); n != 2 {
			t.Errorf("told %d times, want 2", n)
		}
	})
}
