package catalog

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// markVotes finds the word for "yes" in a language that is not known, by the rows
// of the catalogue: it is the one that their marked hosts have in common.
type markVotes struct {
	marked map[string]bool // by host, where all its rows agree
	total  int
	yes    map[string]int
	no     map[string]int
}

func newMarkVotes(known []Row) *markVotes {
	v := &markVotes{marked: map[string]bool{}, yes: map[string]int{}, no: map[string]int{}}
	mixed := map[string]bool{}
	for _, r := range known {
		was, ok := v.marked[r.Host]
		is := r.Proxy == ProxyYes
		if slices.Contains(r.Unknown, "proxy") || ok && was != is {
			mixed[r.Host] = true
		}
		v.marked[r.Host] = is
	}
	for host := range mixed {
		delete(v.marked, host)
	}
	return v
}

// add counts a word that may be the mark of host.
func (v *markVotes) add(host, word string) {
	marked, ok := v.marked[host]
	switch {
	case ok && marked:
		v.total++
		v.yes[word]++
	case ok:
		v.no[word]++
	}
}

// word is the word of at least three marked hosts and of most, and of few others;
// empty where there is none.
func (v *markVotes) word() string {
	best := ""
	for w, n := range v.yes {
		if n >= 3 && 4*v.no[w] <= n && (best == "" || n > v.yes[best] || n == v.yes[best] && w < best) {
			best = w
		}
	}
	if 3*v.yes[best] < v.total {
		return ""
	}
	return best
}

// isMarkLike reports whether a word of a language that is not known can be a mark.
func isMarkLike(s string) bool {
	return !isBlank(s) && utf8.RuneCountInString(s) <= 24 && !isParagraph(s)
}

// readMarks reads the cells of proxy support. A word of no language that is known
// counts as most of the rows of known that have it are marked, and as a mark
// where none has: an empty cell is how the article says no.
func readMarks(list []found, known []Row) error {
	foreign := !slices.ContainsFunc(list, func(f found) bool { p, ok := readProxy(f.mark); return ok && p == ProxyYes })
	v := newMarkVotes(known)
	for _, f := range list {
		v.add(f.Host, f.mark)
	}
	for i := range list {
		f := &list[i]
		p, ok := readProxy(f.mark)
		switch {
		case ok:
			f.Proxy = p
		case isPush(f.Host):
			f.Proxy = ProxySeeAPNs
		case !foreign || f.known || !isMarkLike(f.mark):
			return fmt.Errorf("%s: %s: proxy support: %q is not understood (known: Yes, Ja, nothing, the note on APNs)", f.at, f.Host, f.mark)
		case v.no[f.mark] > v.yes[f.mark]:
			f.Proxy = ProxyUnmarked
		default:
			f.Proxy = ProxyYes
		}
	}
	return nil
}

func isPush(host string) bool { return section{}.serviceOf(host) == Push }
