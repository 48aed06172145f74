package hostset

import (
	"hash/maphash"
	"net/url"
	"strconv"
	"strings"

	"espalier/policy"
)

// This file has the entries that are URLs, as lists such as URLhaus and the "urls" of UT1 have
// them. An entry matches its path and what is below it. It is kept as host, port if it is not
// the usual one, and path.

// isUsual reports whether entries leave a port out.
func isUsual(port uint16) bool { return port == 80 || port == 443 }

// url takes "http://host:port/path" and "host/path". Queries are not compared, so entries with
// one are skipped. A URL without a path is its host.
func (p *parser) url(word string) error {
	if !strings.Contains(word, "://") {
		word = "http://" + word
	}
	u, err := url.Parse(word)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return errSkip
	}
	t, err := policy.ParseTarget(u.Host, 80)
	if err != nil {
		return err
	}
	entry, path := t.Host, strings.TrimRight(u.EscapedPath(), "/")
	if !isUsual(t.Port) {
		entry += ":" + strconv.Itoa(int(t.Port))
	}
	switch {
	case entry == t.Host && path == "":
		p.add(entry, exact)
		return nil
	case strings.ContainsAny(path, "*^|"), len(entry)+len(path) > maxEntry:
		return errSkip
	}
	p.add(entry+path, exact)
	p.paths++
	return nil
}

// Paths is the number of entries that have a path or port. They match only where the path of
// a request is seen: plain and intercepted ones, and no tunnels.
func (s *Set) Paths() int {
	if s == nil {
		return 0
	}
	return s.paths
}

// MatchURL reports whether an entry with a path has host, port and path, which begins with "/"
// and ends before the query, and which one: the longest. It allocates if the set has such
// entries.
func (s *Set) MatchURL(host string, port uint16, path string) (entry string, ok bool) {
	if s.Paths() == 0 || path == "" {
		return "", false
	}
	key := host
	if !isUsual(port) {
		key += ":" + strconv.Itoa(int(port))
	}
	base := len(key)
	key += path[:min(len(path), maxEntry)]
	for end := base; ; {
		if name := strings.TrimRight(key[:end], "/"); len(name) > len(host) && len(name) <= maxEntry {
			p := s.probe(maphash.String(s.seed, name))
			p.name = name
			if s.find(&p)&exact != 0 {
				entry = name
			}
		}
		if end == len(key) {
			return entry, entry != ""
		}
		if next := strings.IndexByte(key[end+1:], '/'); next >= 0 {
			end += 1 + next
		} else {
			end = len(key)
		}
	}
}
