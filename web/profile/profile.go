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
	"crypto/x509"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
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
