package hostset

import (
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"net/url"
	"path"
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
	entry, path := t.Host, normalPath(u.EscapedPath())
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

// MatchURL reports whether an entry with a path has host, port and path, as a request has it,
// and which one: the longest. A query does not matter, nor do different spellings of a path, as
// normalPath has them. It allocates if the set has such entries.
func (s *Set) MatchURL(host string, port uint16, path string) (entry string, ok bool) {
	if s.Paths() == 0 || path == "" {
		return "", false
	}
	key := host
	if !isUsual(port) {
		key += ":" + strconv.Itoa(int(port))
	}
	base := len(key)
	path = normalPath(path)
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

// normalPath makes one of the spellings of a path that servers take for the same (RFC 3986,
// section 6.2.2): it leaves out the query, dot segments, empty segments and a "/" at the end, and
// encodes only "%" and what is not printable ASCII.
func normalPath(s string) string {
	s, _, _ = strings.Cut(s, "?")
	s = strings.TrimRight(path.Clean("/"+decoded(s)), "/")
	if !strings.ContainsFunc(s, isEncoded) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if isEncoded(rune(s[i])) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func isEncoded(r rune) bool { return r <= ' ' || r >= 0x7f || r == '%' }

// decoded decodes a path; an invalid escape stays as it is.
func decoded(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "%")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		c, err := hex.DecodeString(rest[:min(len(rest), 2)])
		if err != nil || len(c) == 0 {
			b.WriteByte('%')
			s = rest
			continue
		}
		b.Write(c)
		s = rest[2:]
	}
}
