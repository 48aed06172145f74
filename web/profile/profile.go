// Package profile makes configuration profiles for Apple devices: the PAC script,
// the root certificate of TLS interception, wireless networks, name servers and
// restrictions. Each is checked against Apple's device management schema
// (schema.tsv).
//
// Identifiers and UUIDs come from what makes a profile another one beside others on
// a device: its kind, site, network and DNS domains. The same profile with other
// contents has the same ones, so that a device replaces the one that it has.
package profile

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/smallstep/pkcs7"
	"howett.net/plist"
)

// ContentType is the media type that devices install from.
const ContentType = "application/x-apple-aspen-config"

// A payload is one part of a profile.
type payload struct {
	kind  string // PayloadType
	name  string // part of the identifiers; differs where a profile has several
	title string
	keys  map[string]any
}

// A payloadRef is the UUID of the payload of that name in the same profile.
type payloadRef string

// namespace is that of the version 5 UUIDs (RFC 9562) of identifiers. It was
// drawn once, and must never change.
var namespace = uuid.MustParse("8f0c1d5e-6d0a-4c1b-9a53-2f7be1a0c6d4")

// id is the UUID of what has the identifier s.
func id(s string) string {
	return strings.ToUpper(uuid.NewSHA1(namespace, []byte(s)).String())
}

// plist returns the property list of a profile with payloads, signed if the issuer
// signs. name tells the issuer's profiles apart; a device replaces the one of the same
// name. It returns an error for what Apple's schema does not allow.
func (i *Issuer) plist(name string, r Request, payloads []payload) ([]byte, error) {
	identifier := i.identifier + "." + name
	content := make([]map[string]any, len(payloads))
	for n, p := range payloads {
		part := identifier + "." + p.name
		dict := map[string]any{
			"PayloadType": p.kind, "PayloadVersion": 1, "PayloadIdentifier": part, "PayloadUUID": id(part),
			"PayloadDisplayName": p.title, "PayloadOrganization": i.organization,
		}
		for key, value := range p.keys {
			dict[key] = resolve(value, identifier)
		}
		if err := checkSchema(dict); err != nil {
			return nil, fmt.Errorf("profile %s: %w", identifier, err)
		}
		content[n] = dict
	}
	seconds := r.RemoveAfter.Truncate(time.Second).Seconds()
	top := optional(map[string]any{
		"PayloadType": "Configuration", "PayloadVersion": 1, "PayloadIdentifier": identifier, "PayloadUUID": id(identifier),
		"PayloadDisplayName": i.organization + ": " + r.title(), "PayloadOrganization": i.organization, "PayloadScope": "System",
		"PayloadContent": content, "PayloadDescription": r.description(), "PayloadRemovalDisallowed": r.Locked,
		"RemovalDate": r.RemoveOn.UTC().Truncate(time.Second), "DurationUntilRemoval": seconds,
	})
	if err := checkSchema(top); err != nil {
		return nil, fmt.Errorf("profile %s: %w", identifier, err)
	}
	data, err := plist.MarshalIndent(top, plist.XMLFormat, "\t")
	if err != nil {
		return nil, fmt.Errorf("profile %s: %w", identifier, err)
	}
	if seconds > 0 { // Apple's DTD has no exponents as the encoder writes them
		real := func(format byte) []byte {
			return []byte("<real>" + strconv.FormatFloat(seconds, format, -1, 64) + "</real>")
		}
		data = bytes.Replace(data, real('g'), real('f'), 1)
	}
	return i.sign(append(data, '\n'))
}

// optional returns keys without those that have the zero value.
func optional(keys map[string]any) map[string]any {
	maps.DeleteFunc(keys, func(_ string, v any) bool { return reflect.ValueOf(v).IsZero() })
	return keys
}

// resolve puts UUIDs in the place of references to payloads of a profile.
func resolve(value any, identifier string) any {
	switch v := value.(type) {
	case payloadRef:
		return id(identifier + "." + string(v))
	case []payloadRef:
		list := make([]string, len(v))
		for i, ref := range v {
			list[i] = id(identifier + "." + string(ref))
		}
		return list
	case map[string]any:
		dict := make(map[string]any, len(v))
		for key, value := range v {
			dict[key] = resolve(value, identifier)
		}
		return dict
	}
	return value
}

// rootPayload makes a device know a root certificate: com.apple.security.root. The device
// trusts it for TLS if an MDM server has installed the profile; otherwise a person
// switches that on in the settings.
func rootPayload(cert *x509.Certificate) payload {
	p := certificate(cert, "root", "espalier-root.cer")
	p.kind = "com.apple.security.root"
	return p
}

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
	der, err := i.signedData(data)
	if err != nil {
		return nil, fmt.Errorf("sign the profile: %w", err)
	}
	return der, nil
}

func (i *Issuer) signedData(data []byte) ([]byte, error) {
	signed, err := pkcs7.NewSignedData(data)
	if err != nil {
		return nil, err
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	chain, err := x509.ParseCertificates(slices.Concat(i.signer.Certificate[1:]...))
	if err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	if err := signed.AddSignerChain(i.signer.Leaf, i.signer.PrivateKey, chain, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, err
	}
	return signed.Finish()
}
