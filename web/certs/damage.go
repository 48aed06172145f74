package certs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// damage says what is wrong with the files that are kept for name, so that they can
// be no certificate, and with which of them. It is nil where they can be one, where
// one is missing, since certmagic then obtains all anew, and where one cannot be
// read, since then it may be in order.
func (a *authority) damage(ctx context.Context, name string) error {
	issuer := a.issuer.IssuerKey()
	certFile, keyFile, metaFile := certmagic.StorageKeys.SiteCert(issuer, name), certmagic.StorageKeys.SitePrivateKey(issuer, name), certmagic.StorageKeys.SiteMeta(issuer, name)
	chain, err1 := a.storage.Load(ctx, certFile)
	key, err2 := a.storage.Load(ctx, keyFile)
	meta, err3 := a.storage.Load(ctx, metaFile)
	if errors.Join(err1, err2, err3) != nil {
		return nil
	}
	if err := json.Unmarshal(meta, &certmagic.CertificateResource{}); err != nil {
		return fmt.Errorf("%s: %w", a.storage.Filename(metaFile), err)
	}
	if _, err := certmagic.PEMDecodePrivateKey(key); err != nil {
		return fmt.Errorf("%s: %w", a.storage.Filename(keyFile), err)
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return fmt.Errorf("%s: %w", a.storage.Filename(certFile), err)
	}
	return nil
}

// mend moves the files that are kept for name aside where they are damaged, so that
// others can be obtained. It waits for whoever is about to write some.
func (a *authority) mend(ctx context.Context, name string) error {
	if a.damage(ctx, name) == nil {
		return nil
	}
	// certmagic's own lock for name.
	lock := "issue_cert_" + name
	if err := a.storage.Lock(ctx, lock); err != nil {
		return err
	}
	defer func() { _ = a.storage.Unlock(context.WithoutCancel(ctx), lock) }()
	damage := a.damage(ctx, name)
	if damage == nil {
		return nil
	}
	dir := filepath.Dir(a.storage.Filename(certmagic.StorageKeys.SiteCert(a.issuer.IssuerKey(), name)))
	aside := dir + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
	if err := os.Rename(dir, aside); err != nil {
		return fmt.Errorf("%w; it cannot be moved aside: %w", damage, err)
	}
	a.log.Error("a certificate that is kept is damaged; it was moved aside, and another is obtained",
		zap.String("name", name), zap.Error(damage), zap.String("kept", aside))
	return nil
}
