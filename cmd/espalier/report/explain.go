package report

import (
	"strings"

	"espalier/pac"
	"espalier/policy"
	"espalier/web/explain"
)

// pacSource says what gives a PAC answer, unless it is one of the four usual routes.
func pacSource(x *explain.Explanation) string {
	switch class := pac.Class(x.PACClass); class {
	case pac.Local:
		return " (local: " + x.Local + ")"
	case pac.Internal:
		return " (pac.internal)"
	case pac.Default, pac.Apple, pac.AppleUnmarked:
		return ""
	default:
		return " (pac.routes." + string(class) + ")"
	}
}

// Explanation writes what happens to a destination, and why.
func Explanation(s Screen, x *explain.Explanation) error {
	service := x.Service
	if len(x.Also) > 0 {
		service += " (also " + strings.Join(x.Also, ", ") + ")"
	}
	as := green
	if x.Action == string(policy.Deny) || x.Action == string(policy.Challenge) {
		as = red
	}
	l := &lines{s: s, indent: 2, label: 9}
	l.WriteString(s.paint(bold, x.Target) + "\n")
	l.row("action", as, x.Action)
	l.row("rule", plain, x.Rule)
	l.row("why", plain, x.Why)
	l.row("service", plain, service)
	if x.Dial != "" {
		l.row("dial", plain, "the address of "+x.Dial)
	}
	if len(x.Headers) > 0 {
		l.row("sets", plain, strings.Join(x.Headers, ", "))
	}
	if x.PACUnknown != "" {
		l.row("PAC", yellow, "not known: "+x.PACUnknown)
	} else {
		l.row("PAC", plain, x.PAC+pacSource(x))
	}
	var rows []string
	for _, r := range x.Rows {
		text := r.Host + " " + strings.Join(r.Transports, ",")
		if len(r.Ports) > 0 {
			text += " " + joined(r.Ports, ",")
		}
		text += ", " + r.Section
		if r.Purpose != "" {
			text += ": " + r.Purpose
		}
		if r.Until != "" {
			text += " (retired " + r.Until + ")"
		}
		rows = append(rows, text)
	}
	l.rows("catalogue", plain, rows...)
	if len(x.NotLoaded) > 0 {
		l.row("lists", yellow, "not loaded here, so that they match nothing: "+strings.Join(x.NotLoaded, ", "))
	}
	if x.Note != "" {
		l.row("note", yellow, x.Note)
	}
	return l.write()
}
