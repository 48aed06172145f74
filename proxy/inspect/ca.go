// Package inspect intercepts TLS where policy wants it: it speaks for other
// hosts with certificates of its own CA.
//
// That CA cannot speak for Apple. Its certificates exclude every host of the
// catalogue by X.509 name constraints, so that devices refuse what is made with
// its key, and Leaves refuses to make it.
package inspect

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"espalier/policy/catalog"
)

const (
	day = 24 * time.Hour
	// A new root has to be brought to every device, so it lives long; less so
	// where its key stays on a machine that faces the network.
	onlineRootLife  = 5 * 365 * day
	offlineRootLife = 10 * 365 * day
	// An intermediate is replaced without touching a device.
	intermediateLife = 2 * 365 * day
	// clockSkew is how far behind a device's clock may be.
	clockSkew = time.Hour
)

// A CA issues certificates that devices trust once they trust its root. It is
// immutable and safe for concurrent use.
type CA struct {
	root   *x509.Certificate
	issuer *x509.Certificate // root itself, or the intermediate
	key    *ecdsa.PrivateKey // of issuer
	not    Constraints       // of root and issuer together
}

// Root is the certificate that devices must trust.
func (ca *CA) Root() *x509.Certificate { return ca.root }

// Issuer is the certificate that signs leaves: the root, or the intermediate
// if the root's key is kept elsewhere.
func (ca *CA) Issuer() *x509.Certificate { return ca.issuer }

// Offline reports whether the root's key is kept elsewhere.
func (ca *CA) Offline() bool { return ca.issuer != ca.root }

// NotAfter is when the first of the CA's certificates expires, after which no
// device trusts a leaf.
func (ca *CA) NotAfter() time.Time {
	if ca.issuer.NotAfter.Before(ca.root.NotAfter) {
		return ca.issuer.NotAfter
	}
	return ca.root.NotAfter
}

// Excludes reports whether devices would refuse a leaf for a normalised name,
// or for addr if that is valid. It does not allocate.
func (ca *CA) Excludes(host string, addr netip.Addr) bool { return ca.not.Exclude(host, addr) }

// Constraints returns what the CA excludes. The slices must not be modified.
func (ca *CA) Constraints() Constraints { return ca.not }

// newCA puts loaded or new certificates together.
func newCA(root, issuer *x509.Certificate, key *ecdsa.PrivateKey) *CA {
	return &CA{root: root, issuer: issuer, key: key, not: merge(constraintsIn(root), constraintsIn(issuer))}
}

// Fingerprint returns the SHA-256 of a certificate in the form that devices and
// openssl show.
func Fingerprint(c *x509.Certificate) string {
	return strings.ReplaceAll(fmt.Sprintf("% X", sha256.Sum256(c.Raw)), " ", ":")
}

// InitOptions say what CA is made.
type InitOptions struct {
	// Organization stands in the subject; empty means Espalier.
	Organization string
	// Days is how long the root is valid; 0 means five years, or ten if its key is
	// kept elsewhere.
	Days int
	// OfflineRoot is a directory that root.crt and root.key are written to, to
	// be taken away. Empty means that the root signs leaves itself.
	OfflineRoot string
	// Force moves a CA that is there aside instead of failing.
	Force bool
	// Exclude are the rows that the CA must not speak for.
	Exclude []catalog.Row
}

// Validate checks what x509 would not. Errors begin with the flag's name.
func (o *InitOptions) Validate() error {
	if n := len([]rune(o.Organization)); n > 64 {
		return fmt.Errorf("org: has %d letters (allowed: 64)", n) // RFC 5280, appendix A
	}
	if o.Days < 0 || o.Days > 25*365 {
		return fmt.Errorf("days: %d (allowed: 1 to %d)", o.Days, 25*365)
	}
	return nil
}

// makeRoot makes a self-signed root.
func makeRoot(o *InitOptions, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	life := onlineRootLife
	if o.OfflineRoot != "" {
		life = offlineRootLife
	}
	if o.Days > 0 {
		life = time.Duration(o.Days) * day
	}
	org := o.Organization
	if org == "" {
		org = "Espalier"
	}
	t := &x509.Certificate{
		Subject:  pkix.Name{Organization: []string{org}, CommonName: "Espalier Root CA"},
		NotAfter: now.Add(life),
	}
	if o.OfflineRoot == "" {
		signsLeaves(t)
	} else {
		t.MaxPathLen = 1
	}
	return issue(t, now, ConstraintsOf(o.Exclude), nil, nil)
}

// makeIntermediate makes what signs leaves in place of root. It excludes what
// root does, for verifiers that do not look at what they trust anyway (RFC 5280,
// section 6.1), and all of exclude, which may be newer.
func makeIntermediate(
	root *x509.Certificate, rootKey *ecdsa.PrivateKey, exclude []catalog.Row, now time.Time,
) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	t := &x509.Certificate{
		Subject:  pkix.Name{Organization: root.Subject.Organization, CommonName: "Espalier Intermediate CA"},
		NotAfter: now.Add(intermediateLife),
	}
	if t.NotAfter.After(root.NotAfter) {
		t.NotAfter = root.NotAfter
	}
	signsLeaves(t)
	return issue(t, now, merge(constraintsIn(root), ConstraintsOf(exclude)), root, rootKey)
}

// signsLeaves makes t good for signing the certificates of TLS servers and for
// nothing else, such as mail or further CAs.
func signsLeaves(t *x509.Certificate) {
	t.MaxPathLen, t.MaxPathLenZero = 0, true
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
}

// issue makes the CA certificate that t begins, which excludes c, for a new key. Parent
// signs it with key; nil: it signs itself. Its name carries a piece of the new key's, so
// that two generations can be told apart in a device's settings.
func issue(
	t *x509.Certificate, now time.Time, c Constraints, parent *x509.Certificate, key *ecdsa.PrivateKey,
) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	raw, err := own.PublicKey.Bytes()
	if err != nil {
		return nil, nil, err
	}
	id := sha256.Sum256(raw)
	t.Subject.CommonName += " " + hex.EncodeToString(id[:4])
	t.NotBefore = now.Add(-clockSkew)
	t.BasicConstraintsValid, t.IsCA = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	c.constrain(t)
	if parent == nil {
		parent, key = t, own
	}
	// Without a serial number, x509 makes a random one.
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &own.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, own, err
}
