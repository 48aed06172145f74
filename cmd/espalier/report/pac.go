package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"espalier/pac"
	"espalier/pac/history"
	"espalier/pac/lint"
)

// PACAnswers writes what scripts answer.
func PACAnswers(s Screen, answers []pac.EngineAnswer) error {
	if len(answers) == 0 {
		return nil
	}
	t := NewTable("URL", "ENGINE", "ANSWER")
	byEngine := false
	for _, a := range answers {
		byEngine = byEngine || a.Engine != ""
		answer := in(plain, a.Answer)
		if a.Error != "" {
			answer = in(red, "error: "+a.Error)
		}
		t.Add(a.URL, cmp.Or(a.Engine, "all"), answer)
	}
	if !byEngine {
		t.without("ENGINE")
	}
	return t.Write(s)
}

// PACChanges writes which of the URLs that were asked get another answer.
func PACChanges(s Screen, changes []pac.Change, asked int) error {
	t := NewTable("URL", "ENGINE", "OLD", "NEW")
	byEngine, urls := false, map[string]bool{}
	for _, c := range changes {
		byEngine, urls[c.URL] = byEngine || c.Engine != "", true
		t.Add(c.URL, cmp.Or(c.Engine, "all"), c.Old, c.New)
	}
	if !byEngine {
		t.without("ENGINE")
	}
	if len(changes) > 0 {
		if err := t.Write(s); err != nil {
			return err
		}
	}
	return s.print(fmt.Sprintf("%d of %d URLs get another answer\n", len(urls), asked))
}

// Findings writes the faults of the script in file; others were allowed.
func Findings(s Screen, file string, found []lint.Finding, allowed int) error {
	l := &lines{s: s}
	count := map[string]int{}
	for _, f := range found {
		count[f.Severity]++
		as := yellow
		if f.Severity == lint.Error {
			as = red
		}
		at := file
		if f.Line > 0 {
			at = fmt.Sprintf("%s:%d:%d", file, f.Line, f.Column)
		}
		fmt.Fprintf(l, "%s: %s: %s\n", at, s.paint(as, f.Severity), f.Text())
	}
	fmt.Fprintf(l, "%s: %s, %s", file, plural(count[lint.Error], "error", "errors"), plural(count[lint.Warning], "warning", "warnings"))
	if allowed > 0 {
		fmt.Fprintf(l, ", %d allowed", allowed)
	}
	l.WriteByte('\n')
	return l.write()
}

// Scripts writes a table of the scripts that were in force.
func Scripts(s Screen, entries []history.Entry) error {
	t := NewTable("ID", "SINCE", "SITE", "CONFIG", "BYTES")
	for _, e := range entries {
		t.Add(e.ID, Local(e.Time), e.Site, e.Config, e.Size)
	}
	return t.Write(s)
}

// ScriptURLs writes a table of where the script of each site is fetched; that of the site
// "" is the one by the client's address.
func ScriptURLs(s Screen, urls map[string]string) error {
	t := NewTable("SITE", "URL")
	for _, site := range slices.Sorted(maps.Keys(urls)) { // "" is first
		t.Add(cmp.Or(site, "by address"), urls[site])
	}
	return t.Write(s)
}
