package profile

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// checkText returns an error where s cannot be text of a profile: it is not UTF-8,
// has more than limit bytes, or holds a control character or one that XML cannot
// carry. The error repeats s unless secret is set.
func checkText(s string, limit int, secret bool) error {
	shown := strconv.Quote(s) + ": "
	if secret {
		shown = ""
	}
	if !utf8.ValidString(s) {
		return errors.New(shown + "invalid UTF-8")
	}
	for _, r := range s {
		switch {
		case unicode.IsControl(r) || r&0xfffe == 0xfffe: // U+FFFE, U+FFFF and so in each plane
			if secret {
				return errors.New("control characters are not allowed")
			}
			return fmt.Errorf("%scontrol character %U is not allowed", shown, r)
		}
	}
	if len(s) > limit {
		return fmt.Errorf("%s%d bytes are too many (allowed: %d)", shown, len(s), limit)
	}
	return nil
}

// maxText bounds texts that Apple does not bound.
const maxText = 255

// ParseTime parses a time as RFC 3339 has it, or a date, which is its first moment
// in the local time zone.
func ParseTime(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	t, err := time.ParseInLocation(time.DateOnly, s, time.Local)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid time %q (2027-06-30 or 2027-06-30T16:00:00+02:00)", s)
	}
	return t, nil
}

// ParseCertificates parses certificates in PEM, or one in DER.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	if !bytes.Contains(data, []byte("-----BEGIN")) {
		list, err := x509.ParseCertificates(data)
		if err == nil && len(list) == 0 {
			err = errors.New("missing certificate")
		}
		return list, err
	}
	var list []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds %s, must hold certificates only", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, cert)
	}
	if len(list) == 0 {
		return nil, errors.New("missing certificate")
	}
	return list, nil
}
