package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"espalier/policy/auth"
	"espalier/policy/catalog"
	"espalier/proxy/inspect"
	"espalier/web/certs"
	"espalier/web/signin"
)

// A fileKey is a key whose value is the name of a file that is read.
type fileKey struct {
	key  string
	name *string
}

func (c *Config) fileKeys() []fileKey {
	keys := []fileKey{
		{"apple.catalog", &c.Apple.Catalog},
		{"auth.htpasswd", &c.Auth.HTPasswd},
		{"auth.groups", &c.Auth.Groups},
		{"auth.ldap.roots", &c.Auth.LDAP.Roots},
		{"auth.ldap.password_file", &c.Auth.LDAP.PasswordFile},
		{"tls.acme.roots", &c.TLS.ACME.Roots},
		{"tls.files.cert", &c.TLS.Files.Cert},
		{"tls.files.key", &c.TLS.Files.Key},
		{"web.users", &c.Web.Users},
		{"web.profile.cert", &c.Web.Profile.Cert},
		{"web.profile.key", &c.Web.Profile.Key},
	}
	for i := range c.Inspect.Roots {
		keys = append(keys, fileKey{fmt.Sprintf("inspect.roots[%d]", i), &c.Inspect.Roots[i]})
	}
	return keys
}

// resolvePaths makes file names absolute; see Load.
func (l *Loaded) resolvePaths(file string) error {
	cwd, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	c := l.Config
	from := func(dir string, name *string) {
		if *name != "" && *name != "-" && !filepath.IsAbs(*name) {
			*name = filepath.Join(dir, *name)
		}
	}
	written := func(key string, name *string) {
		dir := cwd
		if n := l.lookup(key); n != nil && n.src.layer == layerFile {
			dir = filepath.Dir(file)
			from(cwd, &dir)
		}
		from(dir, name)
	}
	if strings.TrimSpace(c.Data) != "" { // Validate names it
		written("data", &c.Data)
	}
	for _, f := range c.fileKeys() {
		written(f.key, f.name)
	}
	for name, list := range c.Lists {
		written("lists."+name+".file", &list.File)
		c.Lists[name] = list
	}
	for _, name := range []*string{&c.Log.Access.File, &c.Log.Store.Path, &c.TLS.ACME.Storage} {
		from(c.Data, name)
	}
	return nil
}

// checkFiles checks that the files can be read, and the contents of those that
// are read at the start.
func (l *Loaded) checkFiles() []error {
	var errs []error
	users := true // what auth names can be read
	for _, f := range l.Config.fileKeys() {
		if *f.name == "" {
			continue
		}
		if err := readable(*f.name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s %w", f.key, *f.name, err))
			users = users && !strings.HasPrefix(f.key, "auth.")
			continue
		}
		if f.key == "apple.catalog" {
			_, err := catalog.Load(*f.name)
			for _, e := range split(err) {
				errs = append(errs, fmt.Errorf("%s: %w", f.key, e))
			}
		}
		if strings.HasPrefix(f.key, "inspect.roots[") || f.key == "tls.acme.roots" {
			if _, err := inspect.LoadRoots([]string{*f.name}); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s has no certificate in PEM form", f.key, *f.name))
			}
		}
	}
	if f := l.Config.TLS.Files; f.Cert != "" && f.Key != "" && readable(f.Cert) == nil && readable(f.Key) == nil {
		if _, err := certs.ReadFiles(f); err != nil {
			errs = append(errs, fmt.Errorf("tls.%w", err))
		}
	}
	errs = append(errs, l.checkUsers()...)
	if users {
		var err error
		l.users, err = auth.Open(l.Config.Auth, nil, nil) // names the keys itself
		errs = append(errs, split(err)...)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Config.Lists)) {
		if file := l.Config.Lists[name].File; file != "" {
			if err := readable(file); err != nil {
				errs = append(errs, fmt.Errorf("lists.%s.file: %s %w", name, file, err))
			}
		}
	}
	return errs
}

// checkUsers checks the console's users. Those in the data directory may be for
// the eyes of the process only.
func (l *Loaded) checkUsers() []error {
	c := l.Config
	users, err := signin.OpenUsers(c.UsersFile(), nil)
	if errors.Is(err, fs.ErrPermission) {
		return nil // readable has named it where it was asked for
	}
	var errs []error
	for _, e := range split(err) {
		errs = append(errs, fmt.Errorf("web.users: %w", e))
	}
	for _, i := range c.Web.BeyondLoopback() {
		if err == nil && users.Users() == 0 {
			errs = append(errs, fmt.Errorf("web.admin[%d]: %q reaches beyond loopback, and %s has no users (make one with `espalier passwd --role admin NAME`)", i, c.Web.Admin[i], c.UsersFile()))
		}
	}
	return errs
}

// readable reports why a file cannot be read, to be put behind its name.
func readable(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return plainError(err)
	}
	if !info.Mode().IsRegular() {
		return errors.New("is no file")
	}
	f, err := os.Open(name)
	if err != nil {
		return plainError(err)
	}
	return f.Close()
}

// files are those that a change of means a new configuration. Lists are not
// among them: they change without anything else changing, and are read by
// themselves.
func (l *Loaded) files(file string) []string {
	var names []string
	if file != "" {
		names = append(names, file)
	}
	for _, f := range l.Config.fileKeys() {
		if *f.name != "" {
			names = append(names, *f.name)
		}
	}
	if c := l.Config; c.Web.Users == "" {
		names = append(names, c.UsersFile())
	}
	return names
}

// DataDir returns the data directory of a configuration, also of one that is
// wrong elsewhere: commands have to reach the process that runs on the
// configuration before it. The error is that of Load, where not even data can be
// told.
func DataDir(o Options) (string, error) {
	loaded, err := Load(o)
	if err == nil {
		return loaded.Config.Data, nil
	}
	var text []byte
	if o.File != "" {
		var rerr error
		if text, rerr = readFile(o.File); rerr != nil {
			return "", err
		}
	}
	all, ok, _ := layers(o, text)
	if !ok {
		return "", err
	}
	l := &Loaded{Config: &Config{}}
	for _, layer := range all {
		l.root = overlay(l.root, layer)
	}
	n := l.lookup("data")
	if n == nil {
		return "", err
	}
	l.Config.Data, ok = n.value.(string)
	if !ok || l.resolvePaths(o.File) != nil {
		return "", err
	}
	return l.Config.Data, nil
}
