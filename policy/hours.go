package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a machine or container without a zone database knows zones too
)

// hours is a weekly span of time, by the clock on the wall of its zone. A span
// whose end is not after its start runs past midnight and belongs to the day on
// which it starts.
type hours struct {
	days       [7]bool // by time.Weekday
	start, end int     // minutes since midnight; end may be 1440
	zone       *time.Location
}

var weekdays = map[string]time.Weekday{
	"sun": time.Sunday, "mon": time.Monday, "tue": time.Tuesday, "wed": time.Wednesday,
	"thu": time.Thursday, "fri": time.Friday, "sat": time.Saturday,
}

// parseHours parses "[DAYS] HH:MM-HH:MM [ZONE]". DAYS is a comma list of days or
// spans of days (mon-fri), every day where missing; ZONE is an IANA name, the
// machine's zone where missing.
func parseHours(s string) (hours, error) {
	h := hours{zone: time.Local}
	bad := func(what string) (hours, error) {
		return h, fmt.Errorf("%q %s (allowed: \"mon-fri 08:00-16:00 Europe/Stockholm\"; days and zone may be left out)", s, what)
	}
	f := strings.Fields(s)
	if len(f) > 0 && !strings.Contains(f[0], ":") {
		for part := range strings.SplitSeq(strings.ToLower(f[0]), ",") {
			from, to, span := strings.Cut(part, "-")
			if !span {
				to = from
			}
			a, okA := weekdays[from]
			b, okB := weekdays[to]
			if !okA || !okB {
				return bad("names no days")
			}
			for d := a; ; d = (d + 1) % 7 {
				h.days[d] = true
				if d == b {
					break
				}
			}
		}
		f = f[1:]
	} else {
		h.days = [7]bool{true, true, true, true, true, true, true}
	}
	if len(f) == 0 || len(f) > 2 {
		return bad("is no span of hours")
	}
	from, to, ok := strings.Cut(f[0], "-")
	var okA, okB bool
	h.start, okA = parseClock(from)
	h.end, okB = parseClock(to)
	if !ok || !okA || !okB || h.start == 24*60 || h.start == h.end {
		return bad("is no span of hours")
	}
	if len(f) == 2 {
		zone, err := time.LoadLocation(f[1])
		if err != nil {
			return bad("names no known time zone")
		}
		h.zone = zone
	}
	return h, nil
}

// parseClock parses HH:MM, 00:00 to 24:00, to minutes.
func parseClock(s string) (int, bool) {
	if s == "24:00" {
		return 24 * 60, true
	}
	t, err := time.Parse("15:04", s)
	return t.Hour()*60 + t.Minute(), err == nil && len(s) == 5
}

// contain reports whether t is in the span; the start is, the end is not.
func (h hours) contain(t time.Time) bool {
	t = t.In(h.zone)
	day, now := t.Weekday(), t.Hour()*60+t.Minute()
	if h.start < h.end {
		return h.days[day] && h.start <= now && now < h.end
	}
	return h.days[day] && now >= h.start || h.days[(day+6)%7] && now < h.end
}

// EndsOpen reports whether any rule has EndOpen, so that Ends is worth asking.
func (p *Policy) EndsOpen() bool {
	return slices.ContainsFunc(p.rules, func(r rule) bool { return r.endOpen })
}

// Ends reports whether an open tunnel ends now, and the rule that says so. r is the tunnel's
// request and admitted the rule by which it passed. It ends if the policy denies it now, and
// either that rule or the one by which it passed has EndOpen.
func (p *Policy) Ends(r *Request, admitted string) (by string, ends bool) {
	d := p.Decide(r)
	if d.Action != Deny && d.Action != Challenge {
		return "", false
	}
	for i := range p.rules {
		if c := &p.rules[i]; c.endOpen && (c.name == d.Rule || c.name == admitted) {
			return c.name, true
		}
	}
	return "", false
}
