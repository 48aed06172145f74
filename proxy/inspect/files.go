package inspect

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"espalier/policy/catalog"
)

// The files of a CA. ca.crt holds the certificate that signs leaves and, behind
// an intermediate, the root; ca.key the key of the former.
const (
	certFile = "ca.crt"
	keyFile  = "ca.key"
	rootCert = "root.crt" // taken away, with root.key
	rootKey  = "root.key"
)

// Init makes a CA and writes it to dir, which appears complete or not at all.
// The error is fs.ErrExist where there is one and o.Force is not set; moved is
// where Force has put it.
func Init(dir string, o InitOptions) (ca *CA, moved string, err error) {
	if err := o.Validate(); err != nil {
		return nil, "", err
	}
	if len(o.Exclude) == 0 {
		return nil, "", errors.New("a CA must exclude what is Apple's, and no row was given")
	}
	if _, err := os.Lstat(dir); err == nil && !o.Force {
		return nil, "", fmt.Errorf("%s: there is a CA already (--force moves it aside): %w", dir, fs.ErrExist)
	}
	now := time.Now()
	root, key, err := makeRoot(&o, now)
	if err != nil {
		return nil, "", err
	}
	if o.OfflineRoot == "" {
		ca = newCA(root, root, key)
	} else {
		issuer, issuerKey, err := makeIntermediate(root, key, o.Exclude, now)
		if err != nil {
			return nil, "", err
		}
		if err := exportRoot(o.OfflineRoot, root, key); err != nil {
			return nil, "", err
		}
		ca = newCA(root, issuer, issuerKey)
	}
	moved, err = ca.install(dir)
	return ca, moved, err
}

// Renew replaces the intermediate in dir by a new one with a new key, signed
// with the root's key in file. Rows of exclude that the root does not exclude
// are excluded from now on. moved is where the old files are.
func Renew(dir, file string, exclude []catalog.Row) (ca *CA, moved string, err error) {
	old, err := LoadCA(dir)
	if err != nil {
		return nil, "", err
	}
	if !old.Offline() {
		return nil, "", fmt.Errorf("%s: the root signs leaves itself, there is no intermediate to renew", dir)
	}
	now := time.Now()
	if !now.Before(old.root.NotAfter) {
		return nil, "", fmt.Errorf("%s: the root expired on %s; devices need a new CA", dir, old.root.NotAfter.Format(time.DateOnly))
	}
	key, err := readKey(file)
	if err != nil {
		return nil, "", err
	}
	if !key.PublicKey.Equal(old.root.PublicKey) {
		return nil, "", fmt.Errorf("%s: is not the key of the root in %s", file, dir)
	}
	issuer, issuerKey, err := makeIntermediate(old.root, key, exclude, now)
	if err != nil {
		return nil, "", err
	}
	ca = newCA(old.root, issuer, issuerKey)
	moved, err = ca.install(dir)
	return ca, moved, err
}

// LoadCA reads the CA in dir. The error names the file at fault; it is
// fs.ErrNotExist if dir is not there. A key that others than its owner can
// read is refused.
func LoadCA(dir string) (*CA, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	name := filepath.Join(dir, certFile)
	certs, err := readCerts(name)
	if err != nil {
		return nil, err
	}
	key, err := readKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	if err := checkChain(certs); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	issuer, root := certs[0], certs[len(certs)-1]
	if !key.PublicKey.Equal(issuer.PublicKey) {
		return nil, fmt.Errorf("%s: is not the key of %s", filepath.Join(dir, keyFile), name)
	}
	return newCA(root, issuer, key), nil
}

// checkChain checks that certs are those of a CA that cannot speak for Apple.
func checkChain(certs []*x509.Certificate) error {
	if len(certs) > 2 {
		return fmt.Errorf("has %d certificates (wanted: the root, or an intermediate and the root)", len(certs))
	}
	for _, c := range certs {
		if !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return fmt.Errorf("%s is no CA certificate", c.Subject)
		}
		if len(c.ExcludedDNSDomains) == 0 || !c.PermittedDNSDomainsCritical {
			return fmt.Errorf("%s has no critical name constraints, so it could speak for Apple; use `espalier ca init`", c.Subject)
		}
	}
	issuer, root := certs[0], certs[len(certs)-1]
	if err := root.CheckSignatureFrom(root); err != nil {
		return fmt.Errorf("the last certificate is no root: %w", err)
	}
	if err := issuer.CheckSignatureFrom(root); err != nil {
		return fmt.Errorf("the first certificate is not signed by the last: %w", err)
	}
	return nil
}

// install puts the CA's files at dir, all of them at once. A directory that is
// there is moved aside first, and stays there should the second step fail; moved
// says where.
func (ca *CA) install(dir string) (moved string, err error) {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+"-") // 0700
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp) // nothing is left of it if all went well
	certs := []*x509.Certificate{ca.issuer}
	if ca.Offline() {
		certs = append(certs, ca.root)
	}
	key, cert := filepath.Join(temp, keyFile), filepath.Join(temp, certFile)
	if err := writePair(key, ca.key, cert, certs...); err != nil {
		return "", err
	}
	if err := sameOwner(parent, temp, key, cert); err != nil {
		return "", err
	}
	if _, err := os.Lstat(dir); err == nil {
		moved = dir + "." + time.Now().UTC().Format("20060102T150405.000Z")
		if err := os.Rename(dir, moved); err != nil {
			return "", err
		}
	}
	if err := os.Rename(temp, dir); err != nil {
		return moved, err
	}
	return moved, syncDir(parent)
}

// sameOwner gives files the owner of dir where that is another: root makes the CA
// for a proxy that runs as somebody else.
func sameOwner(dir string, files ...string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() {
		return nil
	}
	for _, name := range files {
		if err := os.Chown(name, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// exportRoot writes what the administrator takes away. It overwrites nothing.
func exportRoot(dir string, root *x509.Certificate, key *ecdsa.PrivateKey) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := writePair(filepath.Join(dir, rootKey), key, filepath.Join(dir, rootCert), root); err != nil {
		return err
	}
	return syncDir(dir)
}

// writePair writes the new files of a key, which its owner alone can read, and of
// certificates.
func writePair(keyName string, key *ecdsa.PrivateKey, certName string, certs ...*x509.Certificate) error {
	text, err := pemKey(key)
	if err != nil {
		return err
	}
	if err := write(keyName, text, 0o600); err != nil {
		return err
	}
	return write(certName, pemCerts(certs...), 0o644)
}

// write makes a new file that is on the disk when write returns.
func write(name string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes the names in dir survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readCerts reads a file of one or more certificates.
func readCerts(name string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: has a %s among the certificates", name, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: has no certificate in PEM", name)
	}
	return certs, nil
}

// readKey reads a file with a P-256 key that its owner alone can read.
func readKey(name string) (*ecdsa.PrivateKey, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: others can use this key (mode %04o); `chmod 600 %s`, and make a new CA if it may have been read", name, mode, name)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s: has no PRIVATE KEY in PEM", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%s: not an ECDSA key on P-256", name)
	}
	return key, nil
}

func pemCerts(certs ...*x509.Certificate) (text []byte) {
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

func pemKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
