package policy

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// A List names a set of hosts kept in a file or fetched from a URL.
type List struct {
	File    string        `koanf:"file"`
	URL     string        `koanf:"url"`
	Refresh time.Duration `koanf:"refresh"` // of a URL; 0 means 24 h
}

// minRefresh spares the servers that everybody's lists come from.
const minRefresh = time.Minute

// Validate checks that exactly one source is named.
func (l List) Validate() error {
	switch {
	case l.File == "" && l.URL == "":
		return errors.New("file: missing (a list has a file or a url)")
	case l.File != "" && l.URL != "":
		return errors.New("url: stands beside file (a list has a file or a url, not both)")
	case l.File != "" && l.Refresh != 0:
		return errors.New("refresh: only for a url; a file is read again when it changes")
	case l.Refresh < 0:
		return errors.New("refresh: must not be negative")
	case l.Refresh != 0 && l.Refresh < minRefresh:
		return fmt.Errorf("refresh: %s is too often (allowed: 1m at least)", l.Refresh)
	case l.URL != "":
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
// rules name the list, by several goroutines, and must not allocate. Its answers
// may change at any time, when the list is read again.
type HostList interface {
	Match(host string) (entry string, ok bool)
}

func listed(lists []HostList, host string) bool {
	for _, l := range lists {
		if l == nil {
			continue
		}
		if _, ok := l.Match(host); ok {
			return true
		}
	}
	return false
}
