package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"net/netip"
)

// A NewRow is a row whose host, or whose further row of a known host, the
// catalogue does not have.
type NewRow struct {
	Host, Service string
	// Why says in a few words what its service is by.
	Why string
}

// An UnknownHeading is a heading above a table that names a section in none of the
// known languages.
type UnknownHeading struct {
	Heading string
	Rows    int // below it
	// Section is the section that its rows count as; empty where they are one of
	// their own.
	Section string
}

// assign gives the rows of list their sections and services.
func (a *Article) assign(list []found, o Options) error {
	forced := map[string]string{}
	for h, service := range o.Sections {
		if err := checkService(service); err != nil {
			return fmt.Errorf("section %q: %w", h, err)
		}
		if !slices.ContainsFunc(list, func(f found) bool { return foldHeading(f.heading.name) == foldHeading(h) }) {
			return fmt.Errorf("section %q: no table of the article is below such a heading (it has %s)", h, headingsOf(list))
		}
		forced[foldHeading(h)] = service
	}
	source := strings.TrimSpace("article " + a.Edition)
	votes := sectionVotes(list, o.Known)
	unknown := map[string]*UnknownHeading{}
	var order []string
	secs := make([]section, len(list))
	for i := range list {
		f := &list[i]
		sec, known := f.heading.section(votes[f.heading.name])
		secs[i] = sec
		if !known && f.heading.name != "" {
			u := unknown[f.heading.name]
			if u == nil {
				u = &UnknownHeading{Heading: f.heading.name, Section: sec.name}
				unknown[f.heading.name] = u
				order = append(order, f.heading.name)
			}
			u.Rows++
		}
		f.Source, f.Section = source, cmp.Or(sec.name, f.heading.name)
		if sec.service != "" {
			f.Service = sec.serviceOf(f.Host)
		}
		a.Rows = append(a.Rows, f.Row)
	}
	for _, name := range order {
		a.Unknown = append(a.Unknown, *unknown[name])
	}
	pairs := pairRows(o.Known, a.Rows)
	first := map[string]string{} // the service of a known host
	for _, r := range slices.Backward(o.Known) {
		first[r.Host] = r.Service
	}
	n := newcomers{known: o.Known, set: Compile(o.Known), near: map[string]nearHeading{}}
	for i := range a.Rows {
		r := &a.Rows[i]
		if k := pairs[i]; k >= 0 {
			r.Service = o.Known[k].Service
		} else {
			why := ""
			switch service, ok := forced[foldHeading(list[i].heading.name)]; {
			case ok:
				r.Service, why = service, "as --section says"
			case isPush(r.Host):
				r.Service, why = Push, "it is below push.apple.com"
			case r.Service != "":
				why = fmt.Sprintf("by its section, %q", r.Section)
			case first[r.Host] != "":
				r.Service, why = first[r.Host], "the host has it already"
			default:
				r.Service, why = n.service(r.Host, list[i].heading.name)
			}
			a.New = append(a.New, NewRow{r.Host, r.Service, why})
		}
		if r.Section == "" {
			r.Section = sectionOf(r.Service)
		}
	}
	if len(a.Rows) == 0 {
		return errors.New("no row")
	}
	return nil
}

func headingsOf(list []found) string {
	var names []string
	for _, f := range list {
		if q := fmt.Sprintf("%q", f.heading.name); !slices.Contains(names, q) {
			names = append(names, q)
		}
	}
	return strings.Join(names, ", ")
}

func sectionOf(service string) string {
	i := slices.IndexFunc(Services, func(s Service) bool { return s.ID == service })
	return Services[i].Section
}

// section is the section of a table below h: its heading's, that of the heading
// above, or else the one, vote, that its known hosts are of. ok reports whether
// the heading itself is known.
func (h heading) section(vote section) (sec section, ok bool) {
	if sec, ok := lookupSection(h.name); ok && sec.service != "" {
		return sec, true
	}
	parent := section{}
	for _, name := range h.parents {
		if sec, _ := lookupSection(name); sec.service != "" && sec.service != Push {
			parent = sec
			break
		}
	}
	if parent.service != "" && !h.loose {
		return parent, false
	}
	if vote.service != "" {
		return vote, false
	}
	return parent, false
}

// sectionVotes are the sections that more than half of the known hosts below each
// heading are of.
func sectionVotes(list []found, known []Row) map[string]section {
	of := map[string][]section{}
	for _, r := range known {
		of[r.Host] = append(of[r.Host], section{r.Section, r.Service})
	}
	votes := map[string]map[section]int{}
	total := map[string]int{}
	for _, f := range list {
		// A host of several sections does not tell which, nor does push, which has
		// no table of its own.
		if s := of[f.Host]; len(s) == 1 && s[0].service != Push {
			if votes[f.heading.name] == nil {
				votes[f.heading.name] = map[section]int{}
			}
			votes[f.heading.name][s[0]]++
			total[f.heading.name]++
		}
	}
	won := map[string]section{}
	for name, by := range votes {
		for sec, n := range by {
			if 2*n > total[name] {
				won[name] = sec
			}
		}
	}
	return won
}

// pairRows returns for each row of next the index of the row of old that it is an
// edition of, -1 where there is none. Rows of a host belong together by service,
// then by cells, then by their order; those that are retired come last.
func pairRows(old, next []Row) []int {
	byHost := map[string][]int{}
	for i := range old {
		byHost[old[i].Host] = append(byHost[old[i].Host], i)
	}
	pairs := slices.Repeat([]int{-1}, len(next))
	used := make([]bool, len(old))
	for _, fits := range []func(o, n *Row) bool{
		func(o, n *Row) bool { return o.Service == n.Service && o.Until == n.Until && diffCells(o, n) == nil },
		func(o, n *Row) bool { return o.Service == n.Service && o.Until == "" },
		func(o, n *Row) bool { return o.Service == n.Service },
		func(o, n *Row) bool { return o.Until == "" && sameService(o.Section, n.Section) },
		func(o, n *Row) bool { return o.Until == "" && diffCells(o, n) == nil },
		func(o, n *Row) bool { return o.Until == "" },
		func(o, n *Row) bool { return true },
	} {
		for i := range next {
			if pairs[i] >= 0 {
				continue
			}
			for _, k := range byHost[next[i].Host] {
				if !used[k] && fits(&old[k], &next[i]) {
					pairs[i], used[k] = k, true
					break
				}
			}
		}
	}
	return pairs
}

// sameService reports whether two headings are of the same part of the article,
// by names that are known, or by the same name.
func sameService(a, b string) bool {
	x, knowsA := lookupSection(a)
	y, knowsB := lookupSection(b)
	if knowsA && knowsB {
		return x.service == y.service
	}
	return foldHeading(a) == foldHeading(b)
}

// newcomers finds the services of hosts that the catalogue does not have, below
// headings that are not known.
type newcomers struct {
	known []Row
	set   *Set
	near  map[string]nearHeading // by the heading
}

type nearHeading struct {
	title string
	section
}

// service is the nearest service, and why it is that one.
func (n *newcomers) service(host, name string) (service, why string) {
	near, ok := n.near[name]
	if !ok {
		near.title, near.section = nearestHeading(name)
		n.near[name] = near
	}
	if near.section.service != "" {
		return near.section.service, fmt.Sprintf("heading %q is like %q", name, near.title)
	}
	probe := strings.Replace(host, "*", "x", 1)
	for _, port := range []uint16{443, 80} {
		if m := n.set.Match(probe, netip.Addr{}, port); m.OK() {
			return m.Row.Service, "it is below " + m.Row.Host
		}
	}
	if r := n.nearestHost(host); r != nil {
		return r.Service, "its name is like " + r.Host
	}
	return AppleOther, "nothing known is like it or its heading"
}

// nearestHost is the row of a known host in the same domain whose own label is
// most like that of host.
func (n *newcomers) nearestHost(host string) (best *Row) {
	label, domain, _ := strings.Cut(strings.TrimPrefix(host, "*."), ".")
	most := 0.5
	for i := range n.known {
		l, d, _ := strings.Cut(strings.TrimPrefix(n.known[i].Host, "*."), ".")
		if s := similarity(label, l); s > most && d == domain {
			best, most = &n.known[i], s
		}
	}
	return best
}

// nearestHeading is the known heading that is most like name, by the words that
// they share or by their letters.
func nearestHeading(name string) (title string, sec section) {
	words := telling(name)
	if len(words) == 0 {
		return "", section{}
	}
	most := 0.0
	for _, key := range slices.Sorted(maps.Keys(sections)) {
		s, other := sections[key], telling(key)
		if s.service == "" || len(other) == 0 {
			continue
		}
		shared := 0
		for _, w := range words {
			if slices.Contains(other, w) {
				shared++
			}
		}
		near := 2 * float64(shared) / float64(len(words)+len(other))
		if near < 0.5 {
			near = 0
		}
		if letters := similarity(strings.Join(words, " "), strings.Join(other, " ")); letters >= 0.65 {
			near = max(near, letters)
		}
		if near > most {
			title, sec, most = s.name, s, near
		}
	}
	return title, sec
}

// telling are the words of a heading that tell it from others.
func telling(s string) []string {
	return slices.DeleteFunc(headingWords(s), func(w string) bool {
		return w == "apple" || w == "iphone" || w == "on" || w == "for" || w == "the" || w == "with"
	})
}

// similarity is the share of pairs of letters that two strings have in common
// (Dice's coefficient): 1 where they are the same.
func similarity(a, b string) float64 {
	x, y := bigrams(a), bigrams(b)
	if len(x) == 0 || len(y) == 0 {
		return 0
	}
	total, shared := len(x)+len(y), 0
	for _, p := range x {
		if i := slices.Index(y, p); i >= 0 {
			shared++
			y = slices.Delete(y, i, i+1)
		}
	}
	return 2 * float64(shared) / float64(total)
}

func bigrams(s string) (pairs [][2]rune) {
	r := []rune(s)
	for i := 1; i < len(r); i++ {
		pairs = append(pairs, [2]rune{r[i-1], r[i]})
	}
	return pairs
}
