package doctor

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// trust knows whom to believe: the public CAs, whatever this machine has been
// told to trust beside. An inspecting firewall's CA is often in the machine's
// store, and never in those of Apple's services.
type trust struct {
	public  *x509.CertPool
	machine *x509.CertPool // nil: not known
}

// publicRoots are the CAs that Mozilla trusts, as of the build.
var publicRoots = sync.OnceValue(func() *x509.CertPool {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			continue
		}
		if root.Constraint == nil {
			pool.AddCert(cert)
		} else {
			pool.AddCertWithConstraint(cert, root.Constraint)
		}
	}
	return pool
})

// newTrust believes the CAs in PEM too.
func newTrust(pem []byte) *trust {
	t := &trust{public: publicRoots()}
	if len(pem) > 0 {
		t.public = t.public.Clone()
		t.public.AppendCertsFromPEM(pem)
	}
	t.machine, _ = x509.SystemCertPool()
	return t
}

// judge says whether a chain is host's own.
func (t *trust) judge(chain []*x509.Certificate, host string, now time.Time) Finding {
	leaf := chain[0]
	valid := now
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		// Who has issued it matters more than when.
		valid = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	}
	note := ""
	err := verify(chain, t.public, valid)
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		machine := t.machine != nil && verify(chain, t.machine, valid) == nil
		switch {
		case isApple(chain) && machine:
		case isApple(chain):
			note = "Apple's own CA, as it says of itself (" + nameOfCA(leaf) + "), not in this machine's roots"
		case machine:
			return broken(StepTLS, Intercepted, nameOfCA(leaf), "the issuer is trusted by this machine, but is no public CA")
		default:
			return broken(StepTLS, Intercepted, nameOfCA(leaf), "the issuer is no public CA")
		}
		err = nil
	}
	if err == nil && valid != now {
		return broken(StepTLS, Expired, "", "valid from "+leaf.NotBefore.UTC().Format(time.DateOnly)+" to "+leaf.NotAfter.UTC().Format(time.DateOnly)+
			", issued by "+nameOfCA(leaf))
	}
	if err != nil {
		problem := BadCertificate
		if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
			problem = Expired // one above it
		}
		return broken(StepTLS, problem, "", clean(err.Error())+", issued by "+nameOfCA(leaf))
	}
	if leaf.VerifyHostname(host) != nil {
		return broken(StepTLS, WrongName, "", clean("for "+namesOf(leaf))+", issued by "+nameOfCA(leaf))
	}
	return good(note)
}

func verify(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now})
	return err
}

// isApple reports whether everybody in a chain says to be certified by Apple.
// Push and others have certificates of Apple's own CA, which only Apple's
// devices have.
func isApple(chain []*x509.Certificate) bool {
	return !slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
		return !slices.Equal(c.Issuer.Organization, []string{"Apple Inc."})
	})
}

// nameOfCA is what a certificate's issuer calls itself.
func nameOfCA(leaf *x509.Certificate) string {
	name := leaf.Issuer.CommonName
	if org := strings.Join(leaf.Issuer.Organization, ", "); org != "" && org != name {
		if name == "" {
			name = org
		} else {
			name += " (" + org + ")"
		}
	}
	if name == "" {
		return "a CA without a name"
	}
	return clean(name)
}

// namesOf are the names that a certificate is for.
func namesOf(leaf *x509.Certificate) string {
	names := slices.Clone(leaf.DNSNames[:min(len(leaf.DNSNames), 3)])
	for _, ip := range leaf.IPAddresses[:min(len(leaf.IPAddresses), 1)] {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no host"
	}
	return strings.Join(names, ", ")
}
