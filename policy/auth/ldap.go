package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"
	"go.uber.org/zap"
)

const (
	// maxAsking bounds the sign-ins that a directory is asked about at a time,
	// and so the connections to it.
	maxAsking = 8
	// maxGroups bounds the groups that a search returns.
	maxGroups = 1000
)

// A directory finds users in LDAP. It is safe for concurrent use, by as many as
// turns has room for.
type directory struct {
	cfg       LDAPConfig
	password  string
	identity  string // differs where an answer may differ
	groupBase *ldap.DN
	servers   []*server
	turns     chan struct{}
}

// openDirectory reads the files of cfg. Errors begin with the key, joined.
func openDirectory(cfg LDAPConfig, log *zap.Logger) (*directory, error) {
	d := &directory{cfg: cfg, turns: make(chan struct{}, maxAsking)}
	conf, rootsErr := cfg.tls()
	var err error
	d.password, err = cfg.password()
	if err := errors.Join(rootsErr, err); err != nil {
		return nil, err
	}
	if cfg.GroupBase != "" {
		if d.groupBase, err = ldap.ParseDN(cfg.GroupBase); err != nil {
			return nil, fmt.Errorf("group_base: %w", err)
		}
	}
	cfg.Password, cfg.Cache, cfg.Outage, cfg.Timeout, cfg.MaxFailures = "", 0, 0, 0, 0
	d.identity = fmt.Sprintf("%+v", cfg)
	for _, text := range cfg.urls() {
		u, err := parseURL(text)
		if err != nil {
			return nil, fmt.Errorf("url: %w", err)
		}
		d.servers = append(d.servers, newServer(u, cfg.StartTLS, conf, d.cfg.Timeout, log))
	}
	return d, nil
}

func (d *directory) close() {
	for _, s := range d.servers {
		s.close()
	}
}

// verify asks the servers in order until one answers. It calls try with the user's own
// name, and a bind that tries the password. The error is ErrWrong, that of try, or an
// *UnavailableError.
func (d *directory) verify(name, password string, try func(account string, bind func() error) error) (User, error) {
	// A bind without a password succeeds for anybody (RFC 4513, 5.1.2), and what
	// stops reading at a NUL sees none.
	if password == "" || strings.ContainsRune(password, 0) || !printable(name) || !utf8.ValidString(password) {
		return User{}, ErrWrong
	}
	var errs []error
	for _, s := range d.servers {
		if err := s.down(); err != nil {
			errs = append(errs, err)
			continue
		}
		u, err := d.ask(s, name, password, try)
		if broken := (*serverError)(nil); errors.As(err, &broken) {
			s.failed(broken)
			errs = append(errs, broken)
			continue
		}
		s.answered()
		return u, err
	}
	return User{}, &UnavailableError{fmt.Errorf("auth.ldap: %w", errors.Join(errs...))}
}

// ask asks one server, within its timeout. A kept connection that turns out to be
// closed is no answer.
func (d *directory) ask(s *server, name, password string, try func(account string, bind func() error) error) (User, error) {
	deadline := time.Now().Add(d.cfg.Timeout)
	for {
		c, kept, err := s.take(deadline)
		if err != nil {
			return User{}, err
		}
		u, err := d.session(c, name, password, try)
		if isA[*serverError](err) {
			c.close()
			if kept && c.broken() {
				continue
			}
			return u, err
		}
		s.keep(c)
		return u, err
	}
}

// session finds the user and tries the password on one connection.
func (d *directory) session(c *conn, name, password string, try func(account string, bind func() error) error) (User, error) {
	if err := d.bindService(c); err != nil {
		return User{}, err
	}
	attributes := []string{d.cfg.NameAttribute}
	if d.cfg.GroupAttribute != "" {
		attributes = append(attributes, d.cfg.GroupAttribute)
	}
	found, err := c.search(d.cfg.Base, userFilter(d.cfg.Filter, name), 2, attributes)
	if err != nil {
		return User{}, err
	}
	switch {
	case len(found) == 0:
		return User{}, ErrWrong
	case len(found) > 1:
		return User{}, &UnavailableError{errors.New("auth.ldap.filter: finds several entries for one name")}
	case found[0].DN == "": // to bind by it is to bind anonymously
		return User{}, ErrWrong
	}
	entry := found[0]
	u := User{Name: entry.GetEqualFoldAttributeValue(d.cfg.NameAttribute)}
	if u.Name == "" || !printable(u.Name) {
		return User{}, &UnavailableError{fmt.Errorf("auth.ldap.name_attribute: an entry that the filter finds has no readable %s", d.cfg.NameAttribute)}
	}
	if err := try(u.Name, func() error { return c.bindUser(entry.DN, password) }); err != nil {
		return User{}, err
	}
	if d.cfg.GroupAttribute != "" {
		d.addGroups(&u, entry.GetEqualFoldAttributeValues(d.cfg.GroupAttribute))
	}
	if d.cfg.GroupFilter == "" {
		return u, nil
	}
	if err := d.bindService(c); err != nil {
		return User{}, err
	}
	base := d.cfg.GroupBase
	if base == "" {
		base = d.cfg.Base
	}
	list, err := c.search(base, groupFilter(d.cfg.GroupFilter, entry.DN, u.Name), maxGroups, []string{"1.1"})
	if err != nil {
		return User{}, err
	}
	for _, g := range list {
		d.addGroups(&u, []string{g.DN})
	}
	return u, nil
}

// bindService makes c the connection of the user who searches.
func (d *directory) bindService(c *conn) error {
	if err := c.bind(d.cfg.BindDN, d.password); err != nil {
		key := "bind_dn"
		if d.cfg.BindDN == "" {
			key = "url"
		}
		return &serverError{c.server, fmt.Errorf("auth.ldap.%s: the bind for searching: %w", key, err)}
	}
	return nil
}

// bindUser tries a user's password. The error is ErrWrong, or of the server.
func (c *conn) bindUser(dn, password string) error {
	err := c.bind(dn, password)
	switch {
	case err == nil:
		return nil
	case isRefusal(err):
		return ErrWrong
	}
	return &serverError{c.server, fmt.Errorf("bind of a user: %w", err)}
}

// addGroups adds groups by the names in their DNs; "cn=staff,ou=groups" is staff.
func (d *directory) addGroups(u *User, dns []string) {
	for _, text := range dns {
		dn, err := ldap.ParseDN(text)
		if err != nil || len(dn.RDNs) == 0 || len(dn.RDNs[0].Attributes) == 0 {
			continue // no DN, so no group
		}
		if d.groupBase != nil && !d.groupBase.AncestorOfFold(dn) {
			continue
		}
		if name := dn.RDNs[0].Attributes[0].Value; !slices.Contains(u.Groups, name) {
			u.Groups = append(u.Groups, name)
		}
	}
}

// isRefusal reports whether a directory says by err that the password is wrong
// or the user may not bind, and not that something is wrong with itself.
func isRefusal(err error) bool {
	return ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInappropriateAuthentication,
		ldap.LDAPResultConstraintViolation, ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultNoSuchObject,
		ldap.LDAPResultInsufficientAccessRights)
}

// search returns at most limit entries below base, without following referrals
// or aliases.
func (c *conn) search(base, filter string, limit int, attributes []string) ([]*ldap.Entry, error) {
	req := ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases,
		limit, 0, false, filter, attributes, nil)
	req.EnforceSizeLimit = true
	res, err := c.ldap.Search(req)
	if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) && !errors.Is(err, ldap.ErrSizeLimitExceeded) {
		return nil, &serverError{c.server, fmt.Errorf("search below %s: %w", base, err)}
	}
	return res.Entries, nil
}
