package report

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"espalier/policy/catalog"
	"espalier/proxy/inspect"
)

// A CA is what is to be known of the CA for interception.
type CA struct {
	Mode         string    `json:"mode"` // online-root or offline-root
	Root         cert      `json:"root"`
	Intermediate *cert     `json:"intermediate,omitempty"`
	NotAfter     time.Time `json:"not_after"`
	DaysLeft     int       `json:"days_left"`
	Excluded     struct {
		Domains []string `json:"domains"`
		Blocks  []string `json:"blocks"`
	} `json:"excluded"`
	// Missing are hosts of the catalogue that the CA does not exclude.
	Missing  []string `json:"missing"`
	Warnings []string `json:"warnings"`
}

type cert struct {
	Subject   string    `json:"subject"`
	SHA256    string    `json:"sha256"`
	Serial    string    `json:"serial"`
	Key       string    `json:"key"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Bytes     int       `json:"bytes"`
}

func newCert(c *x509.Certificate) cert {
	return cert{
		Subject: c.Subject.String(), SHA256: inspect.Fingerprint(c), Serial: fmt.Sprintf("%X", c.SerialNumber), Key: "ECDSA P-256",
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Bytes: len(c.Raw),
	}
}

// NewCA describes ca, which must not speak for rows.
func NewCA(ca *inspect.CA, rows []catalog.Row, now time.Time) CA {
	not := ca.Constraints()
	v := CA{
		Mode: "online-root", Root: newCert(ca.Root()), NotAfter: ca.NotAfter(), DaysLeft: ca.DaysLeft(now),
		Missing: list(ca.Missing(rows)), Warnings: list(ca.Warnings(rows, now)),
	}
	v.Excluded.Domains, v.Excluded.Blocks = not.Domains, []string{}
	for _, b := range not.Blocks {
		v.Excluded.Blocks = append(v.Excluded.Blocks, b.String())
	}
	if ca.Offline() {
		issuer := newCert(ca.Issuer())
		v.Mode, v.Intermediate = "offline-root", &issuer
	}
	return v
}

// WriteCA writes v for people.
func WriteCA(s Screen, v CA) error {
	l := &lines{s: s, label: 16}
	cert := func(name string, c cert) {
		l.row(name, plain, c.Subject)
		l.row("  SHA-256", plain, c.SHA256)
		l.row("  valid", plain, c.NotBefore.Format(time.DateOnly)+" to "+c.NotAfter.Format(time.DateOnly))
		l.row("  key", plain, c.Key)
	}
	cert("root", v.Root)
	if v.Intermediate != nil {
		cert("intermediate", *v.Intermediate)
	}
	l.row("mode", plain, v.Mode)
	l.row("days left", plain, strconv.Itoa(v.DaysLeft))
	l.row("cannot speak for", plain, fmt.Sprintf("%d domains, %d address blocks", len(v.Excluded.Domains), len(v.Excluded.Blocks)))
	if n := len(v.Missing); n > 0 {
		l.row("not excluded", plain, plural(n, "host", "hosts")+" of the catalogue, which is newer than the CA: "+strings.Join(v.Missing, ", "))
	}
	for _, w := range v.Warnings {
		l.text(yellow, "warning: "+w)
	}
	return l.write()
}

// MadeCA says that ca was made in dir, with the root's key in offlineRoot if the root is
// offline, and what to do now. The CA before, if any, is in moved.
func MadeCA(s Screen, ca *inspect.CA, dir, offlineRoot, moved string) error {
	root := ca.Root()
	lines := []string{
		fmt.Sprintf("Made %s in %s, valid until %s.", root.Subject.CommonName, dir, root.NotAfter.Format(time.DateOnly)),
		"SHA-256 " + inspect.Fingerprint(root),
	}
	if moved != "" {
		lines = append(lines, "The CA before is in "+moved+"; delete it once no device needs it.")
	}
	if ca.Offline() {
		lines = append(lines, fmt.Sprintf("The root's key is in %s: take it away, and keep it for `espalier ca renew` before %s.",
			filepath.Join(offlineRoot, "root.key"), ca.NotAfter().Format(time.DateOnly)))
	}
	return s.Paragraphs(append(lines,
		"Devices must trust the root: `espalier ca export`, or /ca.crt of web.public. A running proxy takes it over with `espalier reload`.")...)
}

// RenewedCA says that ca has a new intermediate, and what to do now. The one before is in
// moved.
func RenewedCA(s Screen, ca *inspect.CA, moved string) error {
	return s.Paragraphs(
		fmt.Sprintf("Made %s, valid until %s.", ca.Issuer().Subject.CommonName, ca.Issuer().NotAfter.Format(time.DateOnly)),
		"The one before is in "+moved+"; delete it.",
		"A running proxy takes it over with `espalier reload`. Devices need nothing new.",
	)
}
