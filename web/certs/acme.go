package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// loadTime bounds the wait for certificates that are kept already.
const loadTime = 3 * time.Second

// An authority obtains and renews certificates by ACME, with certmagic. They are
// kept in its storage, which several machines may share.
type authority struct {
	domains []string
	log     *zap.Logger
	count   func(result string)
	cache   *certmagic.Cache
	magic   *certmagic.Config
	issuer  *certmagic.ACMEIssuer
	storage *certmagic.FileStorage
	ctx     context.Context // of what goes on in the background
	cancel  context.CancelFunc
	mending sync.WaitGroup

	mu      sync.Mutex
	errs    map[string]error // why a name has no new certificate
	loading []string         // names whose certificates are there and do not serve yet
	loaded  func()           // is called when there are none of these
}

// newAuthority returns an authority that does nothing until manage. Errors begin
// with the rest of the key.
func (c *Certs) newAuthority(cfg ACME) (*authority, error) {
	domains := cfg.Names()
	a := &authority{
		domains: domains, log: c.log, errs: map[string]error{},
		count: func(result string) { c.obtained.WithLabelValues(result).Inc() },
	}
	template := certmagic.ACMEIssuer{
		CA: cmp.Or(cfg.Directory, certmagic.LetsEncryptProductionCA), Email: cfg.Email, Agreed: true,
		DisableHTTPChallenge:    len(cfg.Challenges) > 0 && !slices.Contains(cfg.Challenges, HTTP01),
		DisableTLSALPNChallenge: len(cfg.Challenges) > 0 && !slices.Contains(cfg.Challenges, TLSALPN01),
		AltHTTPPort:             int(cfg.HTTPPort), AltTLSALPNPort: int(cfg.TLSPort),
		HTTPProxy: func(*http.Request) (*url.URL, error) { return nil, nil }, // not the environment's
		Logger:    c.log.WithOptions(zap.IncreaseLevel(zap.WarnLevel)),
	}
	if cfg.EAB.KeyID != "" {
		template.ExternalAccount = &acme.EAB{KeyID: cfg.EAB.KeyID, MACKey: strings.TrimRight(cfg.EAB.MACKey, "=")}
	}
	if cfg.Roots != "" {
		roots, err := pool(cfg.Roots)
		if err != nil {
			return nil, fmt.Errorf(".roots: %w", err)
		}
		template.TrustedRoots = roots
	}
	if cfg.DNS.Provider != "" {
		provider, err := cfg.DNS.provider()
		if err != nil {
			return nil, fmt.Errorf(".dns.%w", err)
		}
		template.DNS01Solver = &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
			DNSProvider: provider, Resolvers: cfg.DNS.Resolvers, Logger: template.Logger,
		}}
	}
	storage := cmp.Or(cfg.Storage, "acme")
	if !filepath.IsAbs(storage) {
		storage = filepath.Join(c.data, storage)
	}
	a.storage = &certmagic.FileStorage{Path: storage}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		Logger:           template.Logger,
	})
	a.magic = certmagic.New(a.cache, certmagic.Config{
		Storage: a.storage, Logger: template.Logger, OnEvent: a.event,
		// For clients that name nobody, or this machine by another name.
		DefaultServerName: domains[0], FallbackServerName: domains[0],
		// Each is given to one listener, whose clients are known.
		CertSelection: newest{},
	})
	a.issuer = certmagic.NewACMEIssuer(a.magic, template)
	a.magic.Issuers = []certmagic.Issuer{issuer{a.issuer}}
	return a, nil
}

// An issuer is one that asks nobody on standard input for the address of a new
// account, as certmagic would amid renew.
//
// Nor does certmagic, which does not know its type, name the certificate that an
// order replaces: authorities refuse that by another account, which a changed
// tls.acme.email means.
type issuer struct{ *certmagic.ACMEIssuer }

func (i issuer) PreCheck(ctx context.Context, names []string, _ bool) error {
	return i.ACMEIssuer.PreCheck(ctx, names, false)
}

// newest selects the certificate that was issued last: where several are for a
// name, the others are about to go.
type newest struct{}

func (newest) SelectCertificate(_ *tls.ClientHelloInfo, choices []certmagic.Certificate) (certmagic.Certificate, error) {
	if len(choices) == 0 {
		return certmagic.Certificate{}, errors.New("there is no certificate")
	}
	return slices.MaxFunc(choices, func(a, b certmagic.Certificate) int { return a.Leaf.NotBefore.Compare(b.Leaf.NotBefore) }), nil
}

// manage begins to obtain what is not there or damaged, and to renew. It waits for
// what is there already to serve, not for an authority.
func (a *authority) manage() {
	var whole []string
	loaded := make(chan struct{})
	a.mu.Lock()
	a.loaded = sync.OnceFunc(func() { close(loaded) })
	for _, d := range a.domains {
		if a.damage(a.ctx, d) != nil {
			a.mending.Go(func() { a.mendAndManage(d) })
			continue
		}
		whole = append(whole, d)
		if a.storage.Exists(a.ctx, certmagic.StorageKeys.SiteCert(a.issuer.IssuerKey(), d)) {
			a.loading = append(a.loading, d)
		}
	}
	a.mu.Unlock()
	_ = a.magic.ManageAsync(a.ctx, whole) // events tell of errors
	a.hasLoaded(nil)
	select {
	case <-loaded:
	case <-time.After(loadTime):
		a.log.Warn("a certificate that is kept could not be loaded in time; Espalier's own serves until it is")
	}
}

// hasLoaded is told the names of a certificate that serves now.
func (a *authority) hasLoaded(names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loading = slices.DeleteFunc(a.loading, func(n string) bool { return slices.Contains(names, n) })
	if len(a.loading) == 0 {
		a.loaded()
	}
}

func (a *authority) mendAndManage(name string) {
	if err := a.mend(a.ctx, name); err != nil {
		if a.ctx.Err() == nil {
			a.failed(name, err)
			a.log.Error("a certificate that is kept is damaged", zap.String("name", name), zap.Error(err))
		}
		return
	}
	_ = a.magic.ManageAsync(a.ctx, []string{name}) // events tell of errors
}

// event is told by certmagic what happens.
func (a *authority) event(ctx context.Context, event string, data map[string]any) error {
	name, _ := data["identifier"].(string)
	switch event {
	case "cached_managed_cert":
		names, _ := data["sans"].([]string)
		a.hasLoaded(names)
	case "cert_obtained":
		renewal, _ := data["renewal"].(bool)
		issuer, _ := data["issuer"].(string)
		a.count("ok")
		a.failed(name, nil)
		a.log.Info("a certificate was obtained", zap.String("name", name), zap.Bool("renewal", renewal), zap.String("authority", issuer))
	case "cert_failed":
		err, _ := data["error"].(error)
		a.count("failed")
		if ctx.Value(askedKey{}) != nil {
			break // who has asked is told
		}
		a.failed(name, err)
		a.log.Error("a certificate was not obtained; it is tried again", zap.String("name", name), zap.Error(err))
	case "cert_ocsp_revoked":
		names, _ := data["subjects"].([]string)
		a.log.Error("a certificate was revoked by its authority and is replaced", zap.Strings("names", names))
	}
	return nil
}

func (a *authority) failed(name string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		delete(a.errs, name)
	} else {
		a.errs[name] = err
	}
}

// problems are why names have no new certificate.
func (a *authority) problems() map[string]error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.errs)
}

// askedKey marks what somebody has asked for and waits for.
type askedKey struct{}

// renew does what Certs.Renew does.
func (a *authority) renew(ctx context.Context, revoke bool) error {
	ctx, cancel := context.WithCancel(context.WithValue(ctx, askedKey{}, true))
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	var errs []error
	for _, name := range a.domains {
		if err := a.renewOne(ctx, name, revoke); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (a *authority) renewOne(ctx context.Context, name string, revoke bool) error {
	// Whoever tries holds the storage's lock for the name until it succeeds.
	if err := a.problems()[name]; err != nil {
		return fmt.Errorf("it is being tried; the last try: %w", err)
	}
	if err := a.mend(ctx, name); err != nil {
		return err
	}
	old, err := a.storage.Load(ctx, certmagic.StorageKeys.SiteCert(a.issuer.IssuerKey(), name))
	if err != nil { // there is none, or it is unreadable
		err = a.magic.ObtainCertSync(ctx, name)
	} else {
		err = a.magic.RenewCertSync(ctx, name, true)
	}
	if err != nil {
		return err
	}
	before := a.cache.AllMatchingCertificates(name)
	now, err := a.magic.CacheManagedCertificate(ctx, name)
	if err != nil {
		return err
	}
	var gone []string
	for _, c := range before {
		if c.Hash() != now.Hash() && slices.Equal(c.Names, now.Names) {
			gone = append(gone, c.Hash())
		}
	}
	a.cache.Remove(gone)
	if !revoke || old == nil {
		return nil
	}
	if err := a.issuer.Revoke(ctx, certmagic.CertificateResource{CertificatePEM: old}, acme.ReasonKeyCompromise); err != nil {
		return fmt.Errorf("the certificate was replaced, and the one before not revoked: %w", err)
	}
	a.log.Info("a certificate was replaced and revoked", zap.String("name", name))
	return nil
}

// close ends what goes on in the background.
func (a *authority) close() {
	a.cancel()
	a.mending.Wait()
	a.cache.Stop()
}

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
