package profile

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/smallstep/pkcs7"
)

// Config says in whose name profiles are made, `web.profile`.
type Config struct {
	// Organization is what devices show as the profiles' maker.
	Organization string `koanf:"organization"`
	// Identifier begins the identifiers of all profiles: reverse domain style.
	// Where it changes, devices keep the former profile beside the new one.
	Identifier string `koanf:"identifier"`
	// Cert and Key are PEM files with which profiles are signed; the certificate's
	// chain may follow it. Both or neither.
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
}

var identifier = regexp.MustCompile(`^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$`)

// Validate checks the values; it does not touch the files. Errors begin with the
// key, joined.
func (c Config) Validate() error {
	var errs []error
	if strings.TrimSpace(c.Organization) == "" {
		errs = append(errs, errors.New("organization: missing (the name that devices show)"))
	} else if err := checkText(c.Organization, maxText, false); err != nil {
		errs = append(errs, fmt.Errorf("organization: %w", err))
	}
	if !identifier.MatchString(c.Identifier) || len(c.Identifier) > maxText {
		errs = append(errs, fmt.Errorf("identifier: invalid identifier %q: must be letters, digits and - between dots, like org.example.espalier, up to %d", c.Identifier, maxText))
	}
	switch {
	case c.Cert != "" && c.Key == "":
		errs = append(errs, errors.New("key: missing (a certificate needs its key)"))
	case c.Key != "" && c.Cert == "":
		errs = append(errs, errors.New("cert: missing (a key needs its certificate)"))
	}
	return errors.Join(errs...)
}

// An Issuer makes profiles. It is safe for concurrent use.
type Issuer struct {
	organization, identifier string
	signer                   *tls.Certificate // nil: profiles are not signed
	now                      func() time.Time
}

// NewIssuer returns the issuer of a valid Config. Errors name the file.
func NewIssuer(c Config) (*Issuer, error) {
	i := &Issuer{organization: c.Organization, identifier: c.Identifier, now: time.Now}
	if c.Cert == "" {
		return i, nil
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("cert: %s with key %s: %w", c.Cert, c.Key, err)
	}
	i.signer = &pair
	return i, nil
}

// Signs reports whether the issuer's profiles are signed.
func (i *Issuer) Signs() bool { return i.signer != nil }

// sign wraps a profile into signed data (CMS, RFC 5652), where there is a signer.
func (i *Issuer) sign(data []byte) ([]byte, error) {
	if i.signer == nil {
		return data, nil
	}
	signed, err := pkcs7.NewSignedData(data)
	if err != nil {
		return nil, fmt.Errorf("sign the profile: %w", err)
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	var chain []*x509.Certificate
	for _, der := range i.signer.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("sign the profile: chain: %w", err)
		}
		chain = append(chain, c)
	}
	if err := signed.AddSignerChain(i.signer.Leaf, i.signer.PrivateKey, chain, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("sign the profile: %w", err)
	}
	der, err := signed.Finish()
	if err != nil {
		return nil, fmt.Errorf("sign the profile: %w", err)
	}
	return der, nil
}
