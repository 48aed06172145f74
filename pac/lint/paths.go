package lint

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"espalier/pac"
)

const (
	// pathsTime, maxTexts and maxPathHosts bound what is tried.
	pathsTime    = time.Second
	maxTexts     = 200
	maxWords     = 50
	maxPathHosts = 100
)

// A text is a literal of the script that may hold a path.
type text struct {
	line, column int
	literal      string
}

var (
	word         = regexp.MustCompile(`^[A-Za-z0-9_-]{2,40}$`)
	extension    = regexp.MustCompile(`^\*?\.[A-Za-z0-9]{1,5}\*?$`)
	repeated     = regexp.MustCompile(`(\[[^\]]*\]|\.)[*+?]?`)
	escaped      = regexp.MustCompile(`\\(.)`)
	wildcards    = strings.NewReplacer("*", "x", "?", "x")
	hostWildcard = strings.NewReplacer("*.", "www.", "*", "x")
)

// literal keeps a string for paths.
func (c *checker) literal(line, column int, s string) {
	if len(c.texts) < maxTexts && len(s) <= 300 && !strings.ContainsAny(s, " ;<>") && (strings.ContainsAny(s, "/=") || extension.MatchString(s)) {
		c.texts = append(c.texts, text{line, column, s})
	} else if len(c.words) < maxWords && word.MatchString(s) {
		c.words = append(c.words, text{line, column, s})
	}
}

// expression keeps what a regular expression may match.
func (c *checker) expression(line, column int, pattern string) {
	const slash, dot = "\x01", "\x02"
	s := strings.NewReplacer(`\/`, slash, `\.`, dot).Replace(pattern)
	s, _, _ = strings.Cut(repeated.ReplaceAllString(s, "x"), "|")
	s = strings.NewReplacer("(", "", ")", "", "^", "", "$", "", "?", "", "+", "", "*", "").Replace(escaped.ReplaceAllString(s, "$1"))
	c.literal(line, column, strings.NewReplacer(slash, "/", dot, ".").Replace(s))
}

// paths asks for https URLs with a path of the script's own literals: devices ask
// without one, so that the answer should be the same.
func (c *checker) paths(js *pac.Evaluator) {
	hosts := []string{"www.example.org"}
	if len(c.texts) > 0 {
		all := pac.HostsIn([]byte(c.src))
		hosts = append(hosts, all[:min(len(all), maxPathHosts)]...)
	}
	bare := map[string]string{}
	begun := time.Now()
	long := text{literal: strings.Repeat("x", 200)} // for what asks for the length
	for _, t := range slices.Concat(c.texts, c.words, []text{long}) {
		c.path(js, t, hosts, bare, begun.Add(pathsTime))
	}
}

// path reports t if a path of it makes a difference. bare are answers without a path
// by host.
func (c *checker) path(js *pac.Evaluator, t text, hosts []string, bare map[string]string, until time.Time) {
	host, paths := pathsOf(t.literal)
	if host != "" {
		hosts = append(slices.Clone(hosts[:1]), host)
	}
	for _, path := range paths {
		for _, host := range hosts {
			if time.Now().After(until) {
				return
			}
			short := "https://" + host + "/"
			without, known := bare[host]
			if !known {
				without = js.Meaning(short, host)
				bare[host] = without
			}
			long := short + path
			if with := js.Meaning(long, host); with != without {
				c.add("https-path", t.line, t.column, Error, "the path of an https URL decides: %s gets %q, but devices tell the script %s, which gets %q", long, with, short, without)
				return
			}
		}
	}
}

// pathsOf returns the paths that a literal may match, and the host if it names one.
func pathsOf(literal string) (host string, paths []string) {
	rest := literal
	if i := strings.Index(literal, "://"); i >= 0 {
		rest = literal[i+3:]
	}
	before, after, _ := strings.Cut(rest, "/")
	if strings.Contains(before, ".") && !strings.HasPrefix(before, ".") || rest != literal {
		if host = strings.TrimPrefix(hostWildcard.Replace(before), "."); !extension.MatchString(before) {
			if strings.Trim(after, "*") == "" {
				return "", nil
			}
			return host, []string{wildcards.Replace(after)}
		}
	}
	forms := []string{wildcards.Replace(literal)}
	if strings.Contains(literal, "?") { // which is a wildcard for shExpMatch only
		forms = append(forms, strings.ReplaceAll(literal, "*", "x"))
	}
	for _, form := range forms {
		p := strings.TrimPrefix(form, "/")
		paths = append(paths, p, "x/"+p, "x"+p)
	}
	return "", paths
}
