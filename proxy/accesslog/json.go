package accesslog

import (
	"bytes"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.uber.org/zap/zapcore"
)

// Bounds of what clients and upstreams choose, in bytes.
const (
	maxMethod = 32
	maxUser   = 256
	maxHost   = 256
	maxURL    = 2048
	maxAgent  = 512
	maxError  = 512
)

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// An encoder appends a record as one line. It is safe for concurrent use, and
// nothing that a client sends can end the line or forge a field.
type encoder interface {
	append(b []byte, r *Record) []byte
}

// jsonEncoder writes every field of the record in every line, by zap's JSON encoder.
type jsonEncoder struct{ node string }

func newJSONEncoder(node string) jsonEncoder { return jsonEncoder{clean(node, maxHost)} }

// recordEncoder names no node.
var recordEncoder jsonEncoder

var zapEncoder = zapcore.NewJSONEncoder(zapcore.EncoderConfig{EncodeTime: zapcore.TimeEncoderOfLayout(timeLayout)})

func (e jsonEncoder) append(b []byte, r *Record) []byte {
	l := jsonLines.Get().(*jsonLine)
	l.Record, l.node = r, e.node
	// The error is that of a marshaler, and ours returns none.
	if buf, err := zapEncoder.EncodeEntry(zapcore.Entry{}, l.field[:]); err == nil {
		b = append(b, buf.Bytes()...)
		buf.Free()
	}
	l.Record = nil
	jsonLines.Put(l)
	return b
}

// MarshalJSON returns the record as the log writes it.
func (r *Record) MarshalJSON() ([]byte, error) {
	return bytes.TrimSpace(newJSONEncoder(r.Node).append(nil, r)), nil
}

// jsonLine is what one encoding needs, kept together so that it costs nothing.
type jsonLine struct {
	*Record
	node    string
	scratch []byte
	field   [1]zapcore.Field // the line itself
}

var jsonLines = sync.Pool{New: func() any {
	l := new(jsonLine)
	l.field[0] = zapcore.Field{Type: zapcore.InlineMarshalerType, Interface: l}
	return l
}}

// MarshalLogObject implements zapcore.ObjectMarshaler. It is the one list of the fields
// that are written, in their order.
func (l *jsonLine) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddTime("time", l.Time.UTC())
	l.scratch, _ = l.ID.AppendText(l.scratch[:0])
	enc.AddByteString("id", l.scratch)
	enc.AddString("node", l.node)
	l.scratch = appendAddr(l.scratch[:0], l.Client)
	enc.AddByteString("client", l.scratch)
	enc.AddString("user", clean(l.User, maxUser))
	enc.AddString("method", clean(l.Method, maxMethod))
	enc.AddString("host", clean(l.Host, maxHost))
	enc.AddUint16("port", l.Port)
	enc.AddString("url", clean(l.URL, maxURL))
	enc.AddString("service", l.Service)
	enc.AddString("action", string(l.Action))
	enc.AddString("rule", l.Rule)
	enc.AddInt("status", l.Status)
	enc.AddInt64("up", l.Up)
	enc.AddInt64("down", l.Down)
	enc.AddFloat64("duration_ms", milliseconds(l.Duration))
	enc.AddFloat64("connect_ms", milliseconds(l.Connect))
	l.scratch = l.scratch[:0]
	if l.Upstream.IsValid() {
		l.scratch = l.Upstream.AppendTo(l.scratch)
	}
	enc.AddByteString("upstream", l.scratch)
	enc.AddString("agent", clean(l.Agent, maxAgent))
	enc.AddString("error", clean(l.Error, maxError))
	return nil
}

// milliseconds keeps whole microseconds.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// appendAddr appends an address as people write it, nothing for the zero Addr.
func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	return a.Unmap().WithZone("").AppendTo(b)
}

// clean cuts s to at most limit bytes and replaces what the JSON encoder would
// pass on although some readers of lines or terminals act on it: DEL, the C1
// controls (NEL ends a line), the line and paragraph separators, and what turns
// the direction of text round. Other controls, quotes and invalid UTF-8 are
// escaped by the JSON encoder.
func clean(s string, limit int) string {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	for i := range len(s) {
		if s[i] >= 0x7f {
			return strings.Map(func(r rune) rune {
				if r >= 0x7f && r <= 0x9f || r >= '\u2028' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' {
					return utf8.RuneError
				}
				return r
			}, s)
		}
	}
	return s
}
