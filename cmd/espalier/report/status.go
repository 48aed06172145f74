package report

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"espalier/cmd/espalier/app"
	"espalier/policy/exempt"
	"espalier/policy/lists"
	"espalier/proxy/inspect"
	"espalier/web/api"
	"espalier/web/certs"
)

// Summary writes what a start says.
func Summary(to Screen, version string, s app.Summary) error {
	l := &lines{s: to, indent: 2, label: 13}
	fmt.Fprintf(l, "%s %s is running\n\n", to.paint(bold, "Espalier"), version)
	if s.PAC != "" {
		l.row("PAC URL", bold, s.PAC)
		l.row("", dim, "give it to your MDM: Global HTTP Proxy, type Automatic")
		if s.Secret {
			l.row("", dim, "with pac.token for TOKEN, as `espalier status` shows it")
		}
	} else {
		l.row("PAC URL", yellow, "none: "+s.Why)
	}
	if s.Proxy != "" {
		l.row("Proxy", plain, s.Proxy)
		l.row("", dim, "what the PAC script sends devices to")
	}
	if s.Console != "" {
		l.row("Console", plain, s.Console)
	}
	if s.Setup != "" {
		l.row("", bold, s.Setup)
		l.row("", dim, "open this once, within the hour, to make the console's first user")
	}
	l.row("Configuration", plain, s.Config)
	l.row("State", plain, s.Data)
	l.WriteByte('\n')
	return l.write()
}

// Status writes what a running process says of itself.
func Status(s Screen, st api.Status) error {
	l := &lines{s: s, indent: 2, label: 13}
	state, as := "running", green
	if st.Draining {
		state, as = "draining", yellow
	} else if st.Overloaded != "" {
		state, as = "overloaded", yellow
	}
	up := time.Duration(st.UptimeSeconds) * time.Second
	fmt.Fprintf(l, "%s  %s for %s  %s\n", s.paint(bold, st.Node), s.paint(as, state), up, s.paint(dim, st.Version))
	reached(l, st)
	l.row("Open tunnels", plain, strconv.FormatInt(st.Tunnels, 10))
	if st.Overloaded != "" {
		l.row("Overloaded", yellow, "requests for what is not Apple's are refused: "+st.Overloaded)
	}
	width := 0
	for _, on := range st.Listeners {
		width = max(width, len(on.Purpose))
	}
	var on []string
	for _, at := range st.Listeners {
		on = append(on, fmt.Sprintf("%-*s  %s", width, at.Purpose, at.Address))
	}
	l.rows("Listening", plain, on...)
	l.row("Configuration", plain, cmp.Or(st.Reload.File, "built-in default")+", loaded "+Local(st.Reload.Loaded))
	if !st.Reload.OK {
		l.row("", red, "the last reload, "+Local(st.Reload.Time)+", failed; the configuration before it is in force")
		l.rows("", red, st.Reload.Problems...)
	}
	troubles(l, st)
	return l.write()
}

// reached writes where devices find the script and the proxies in it.
func reached(l *lines, st api.Status) {
	if st.PACURL != "" {
		l.row("PAC URL", bold, st.PACURL)
	} else {
		l.row("PAC URL", yellow, "none: web.public is empty, or listens on the loopback only")
	}
	if st.Proxy != "" {
		l.row("Proxy", plain, st.Proxy)
	}
	for _, p := range st.PACProxies {
		if !p.Up {
			l.row("", red, p.Proxy+" is not well since "+Local(p.Since)+", so that it stands last: "+p.Error)
		}
	}
	var fetched []string
	for _, f := range st.PACFetches {
		fetched = append(fetched, fmt.Sprintf("%s by %s, site %s, last %s", plural(int(f.Count), "time", "times"), f.Agent, f.Site, Local(f.Last)))
	}
	l.rows("PAC fetched", plain, fetched...)
}

// troubles writes the state of the records, the lists and the certificates.
func troubles(l *lines, st api.Status) {
	if log := st.AccessLog; log.Error != "" {
		l.row("Access log", red, "cannot be written since "+Local(log.Since)+": "+log.Error)
	}
	if n := st.AccessLog.Lost; n > 0 {
		l.row("Records lost", yellow, strconv.FormatUint(n, 10)+" since the start: the access log could not be written")
	}
	label := "Lists"
	for _, list := range st.Lists {
		state, as := listState(list)
		text := list.Name
		if !list.Loaded.IsZero() {
			text += ", " + plural(list.Entries, "entry", "entries") + ", loaded " + Local(list.Loaded)
		}
		if list.BadLines > 0 {
			text += ", " + plural(list.BadLines, "bad line", "bad lines")
		}
		l.row(label, as, text+": "+state)
		label = ""
	}
	if store := st.Store; store != nil && store.Error != "" {
		l.row("Store", red, "records wait in the access log since "+Local(store.Since)+": "+store.Error)
	}
	if st.CA != nil {
		for _, w := range st.CA.Warnings {
			l.row("CA", yellow, w)
		}
	}
	for _, c := range st.TLS {
		for _, w := range c.Warnings {
			l.row("TLS", yellow, w)
		}
	}
}

// listState says in a few words how it stands with a list.
func listState(s lists.Status) (string, style) {
	switch {
	case s.Loaded.IsZero() && s.Error == "":
		return "not loaded yet: rules that name it " + s.Unloaded(), yellow
	case s.Loaded.IsZero():
		return "not loaded, rules that name it " + s.Unloaded() + ": " + s.Error, red
	case s.Stale && s.Error == "":
		return "stale", yellow
	case s.Stale:
		return "stale: " + s.Error, yellow
	case s.Error != "":
		return "the last try failed: " + s.Error, yellow
	}
	return "ok", green
}

// Lists writes a table of the lists in force, and examples of lines that are not in force.
func Lists(s Screen, all []lists.Status) error {
	if len(all) == 0 {
		return s.print("the configuration has no lists\n")
	}
	t := NewTable("LIST", "ENTRIES", "SKIPPED", "BAD LINES", "LOADED", "CHECKED", "SOURCE", "STATE")
	var remarks strings.Builder
	for _, l := range all {
		state, as := listState(l)
		bad := plain
		if l.BadLines > 0 {
			bad = yellow
		}
		t.Add(in(bold, l.Name), l.Entries, l.SkippedLines, in(bad, l.BadLines), Local(l.Loaded), Local(l.LastSuccess), l.Source, in(as, state))
		for _, text := range l.Remarks() {
			fmt.Fprintf(&remarks, "%s: %s\n", l.Name, text)
		}
		for _, line := range l.Bad[:min(3, len(l.Bad))] {
			fmt.Fprintf(&remarks, "%s: bad line %s\n", l.Name, line)
		}
	}
	if err := t.Write(s); err != nil || remarks.Len() == 0 {
		return err
	}
	return s.print("\n" + remarks.String())
}

// Certificates writes what TLS is served with.
func Certificates(s Screen, all []certs.Status) error {
	l := &lines{s: s, indent: 2, label: 11}
	for i, c := range all {
		if i > 0 {
			l.WriteByte('\n')
		}
		l.WriteString(s.paint(bold, strings.Join(c.Names, ", ")) + "\n")
		l.row("Source", plain, c.Source)
		if !c.NotAfter.IsZero() {
			l.row("Issuer", plain, c.Issuer)
			l.row("Valid", plain, Local(c.NotBefore)+" to "+Local(c.NotAfter))
			// In two lines, so that it fits a terminal.
			l.rows("SHA-256", plain, c.Fingerprint[:48], c.Fingerprint[48:])
		}
		for _, w := range c.Warnings {
			l.row("Warning", yellow, w)
		}
	}
	return l.write()
}

// Exempt writes a table of the hosts that interception leaves alone.
func Exempt(s Screen, rows []exempt.Row) error {
	if len(rows) == 0 {
		return s.Paragraphs("inspect.known_exempt is false, and inspect.exempt is empty.")
	}
	t := NewTable("HOST", "GROUP", "READ", "SOURCE")
	for _, r := range rows {
		t.Add(r.Host, r.Group, r.Date, r.Source)
	}
	return t.Write(s)
}

// Exceptions writes a table of the hosts whose clients refuse interception.
func Exceptions(s Screen, list []inspect.Exception) error {
	if len(list) == 0 {
		return s.Paragraphs("No client has refused interception, and no administrator has decided about a host.")
	}
	t := NewTable("HOST", "STATE", "TUNNELLED FOR", "UNTIL", "REFUSALS", "REASON")
	for _, x := range list {
		host, who, until, as := x.Host, "all clients", "", yellow
		if x.Name != "" {
			host += " (" + x.Name + " in TLS)"
		}
		switch {
		case x.State == inspect.Refused:
			who, as = "no client", plain
		case x.Everybody:
		case len(x.Clients) == 1:
			who = x.Clients[0].Client.String()
		default:
			who = fmt.Sprintf("%d clients", len(x.Clients))
		}
		if !x.Until.IsZero() {
			until = Local(x.Until)
		}
		if x.State == inspect.Accepted {
			as = green
		}
		t.Add(host, in(as, x.State), who, until, x.Refusals, x.Reason)
	}
	return t.Write(s)
}
