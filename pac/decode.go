package pac

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// An Encoding is how the bytes of a script mean text. The zero value is ASCII, or
// UTF-8 without a byte order mark.
type Encoding string

const (
	UTF8Mark  Encoding = "UTF-8 with a byte order mark"
	UTF16LE   Encoding = "UTF-16 (little-endian)"
	UTF16BE   Encoding = "UTF-16 (big-endian)"
	UTF16None Encoding = "UTF-16 without a byte order mark"
	UTF32LE   Encoding = "UTF-32 (little-endian)"
	UTF32BE   Encoding = "UTF-32 (big-endian)"
	Latin1    Encoding = "Latin-1"
)

// Decode returns the text of a script, without a byte order mark. It takes bytes
// that are not UTF-8 for UTF-16 if every other one of the first is zero, and else
// for Latin-1.
func Decode(script []byte) (string, Encoding) {
	switch {
	case bytes.HasPrefix(script, []byte("\ufeff")):
		return string(script[3:]), UTF8Mark
	case bytes.HasPrefix(script, []byte("\xff\xfe\x00\x00")): // UTF-16 of a script has no zero there
		return fromUTF32(script[4:], binary.LittleEndian), UTF32LE
	case bytes.HasPrefix(script, []byte("\x00\x00\xfe\xff")):
		return fromUTF32(script[4:], binary.BigEndian), UTF32BE
	case bytes.HasPrefix(script, []byte("\xff\xfe")):
		return fromUTF16(script[2:], binary.LittleEndian), UTF16LE
	case bytes.HasPrefix(script, []byte("\xfe\xff")):
		return fromUTF16(script[2:], binary.BigEndian), UTF16BE
	}
	var zeros [2]int
	sample := script[:min(len(script), 4096)]
	for i, b := range sample {
		if b == 0 {
			zeros[i%2]++
		}
	}
	// More than 3 in 4 characters are ASCII.
	switch most := len(sample) * 3 / 8; {
	case len(sample) < 4:
	case zeros[1] > most && zeros[0] == 0:
		return fromUTF16(script, binary.LittleEndian), UTF16None
	case zeros[0] > most && zeros[1] == 0:
		return fromUTF16(script, binary.BigEndian), UTF16None
	}
	if utf8.Valid(script) {
		return string(script), ""
	}
	runes := make([]rune, len(script))
	for i, b := range script {
		runes[i] = rune(b)
	}
	return string(runes), Latin1
}

// fromUTF16 ignores half a unit at the end.
func fromUTF16(b []byte, order binary.ByteOrder) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

// fromUTF32 ignores part of a unit at the end.
func fromUTF32(b []byte, order binary.ByteOrder) string {
	runes := make([]rune, len(b)/4)
	for i := range runes {
		runes[i] = rune(order.Uint32(b[4*i:]))
	}
	return string(runes)
}
