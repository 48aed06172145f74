package policy

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"
)

// A List names a set of hosts kept in a file or fetched from a URL.
type List struct {
	File string `koanf:"file"`
	URL  string `koanf:"url"`
	// UT1 is a category of the lists of Université Toulouse Capitole, such as gambling, in
	// place of File and URL.
	UT1     string        `koanf:"ut1"`
	Refresh time.Duration `koanf:"refresh"` // of a URL; 0 means 24 h
	// Member is the file of an archive that has the list, a pattern of path.Match for its
	// last elements; empty if the source is not an archive, or one of a single file.
	Member string `koanf:"member"`
	// Required makes rules that name the list deny what they might match, until the list is
	// loaded.
	Required bool `koanf:"required"`
}

// minRefresh spares the servers that everybody's lists come from.
const minRefresh = time.Minute

// Source returns l with File or URL, and Member, in place of UT1.
func (l List) Source() List {
	if l.UT1 != "" {
		l.URL, l.Member, l.UT1 = "https://dsi.ut-capitole.fr/blacklists/download/"+l.UT1+".tar.gz", l.UT1+"/domains", ""
	}
	return l
}

// Validate checks that exactly one source is named, and what belongs to it.
func (l List) Validate() error {
	sources := 0
	for _, s := range []string{l.File, l.URL, l.UT1} {
		if s != "" {
			sources++
		}
	}
	switch {
	case sources == 0:
		return errors.New("file: missing (a list has a file, a url or a ut1)")
	case l.File != "" && l.URL != "":
		return errors.New("url: stands beside file (a list has a file or a url, not both)")
	case sources > 1:
		return errors.New("ut1: invalid beside file or url: a list has one source")
	case l.UT1 != "" && strings.Trim(l.UT1, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "":
		return fmt.Errorf("ut1: invalid category %q (allowed: a-z, 0-9, _ and -)", l.UT1)
	case l.UT1 != "" && l.Member != "":
		return errors.New("member: invalid beside ut1, which names it")
	case l.File != "" && l.Refresh != 0:
		return errors.New("refresh: only for a url; a file is read again when it changes")
	case l.Refresh < 0:
		return errors.New("refresh: must not be negative")
	case l.Refresh != 0 && l.Refresh < minRefresh:
		return fmt.Errorf("refresh: %s is too often (allowed: 1m at least)", l.Refresh)
	}
	if _, err := path.Match(l.Member, ""); err != nil {
		return fmt.Errorf("member: invalid pattern %q: %w", l.Member, err)
	}
	if l.URL != "" {
		if _, _, err := l.Target(); err != nil {
			return fmt.Errorf("url: %w", err)
		}
	}
	return nil
}

// Target parses the URL and returns where it leads. The error does not repeat
// it, for it may hold a password.
func (l List) Target() (*url.URL, Target, error) {
	u, err := url.Parse(l.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, Target{}, errors.New("is no http or https URL")
	}
	port := uint16(80)
	if u.Scheme == "https" {
		port = 443
	}
	t, err := ParseTarget(u.Host, port)
	if err != nil {
		return nil, Target{}, fmt.Errorf("is no http or https URL: %w", err)
	}
	return u, t, nil
}

// A HostList answers whether a list has a host, in the normal form of
// Target.Host, and by which of its entries. It is asked for every request whose
// rules name the list, by several goroutines, and must not allocate for a name. Its answers
// may change at any time, when the list is read again.
type HostList interface {
	Match(host string) (entry string, ok bool)
	// MatchURL is Match for entries with a path. path is that of a request; its query does not
	// matter. It may allocate.
	MatchURL(host string, port uint16, path string) (entry string, ok bool)
	// Missing reports whether the list is required and not loaded yet, so that what rules
	// say about it is not known.
	Missing() bool
}

// A namedList is a list of a rule.
type namedList struct {
	name string
	HostList
}

// listed returns the name of the first of lists that has t, or t and path, which is empty if it
// is not known. missing is set if none has it, and one that is required is not loaded: its name
// is returned then.
func listed(lists []namedList, t Target, path string) (name string, missing, ok bool) {
	for _, l := range lists {
		if l.HostList == nil {
			continue
		}
		_, ok := l.Match(t.Host)
		if !ok && path != "" {
			_, ok = l.MatchURL(t.Host, t.Port, path)
		}
		if ok {
			return l.name, false, true
		}
		if !missing && l.Missing() {
			name, missing = l.name, true
		}
	}
	return name, missing, false
}
