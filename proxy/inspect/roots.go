package inspect

import (
	"crypto/x509"
	"fmt"
	"os"
)

// LoadRoots returns the CAs that destinations may have certificates of: those
// that the system trusts, and those in PEM files. It is nil, which crypto/tls
// takes for the system's, where there are no files. Errors begin with the index,
// "[i]: ".
func LoadRoots(files []string) (*x509.CertPool, error) {
	if len(files) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without any
	}
	for i, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("[%d]: %s has no certificate in PEM form", i, name)
		}
	}
	return pool, nil
}
