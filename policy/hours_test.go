package policy

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseHoursErrors(t *testing.T) {
	const allowed = ` (allowed: "mon-fri 08:00-16:00 Europe/Stockholm"; days and zone may be left out)`
	tests := []struct{ in, want string }{
		{"", `"" is no span of hours`},
		{"   ", `"   " is no span of hours`},
		{"mon-fri", `"mon-fri" is no span of hours`},
		{"mon fri 08:00-16:00", `"mon fri 08:00-16:00" is no span of hours`},
		{"monday 08:00-16:00", `"monday 08:00-16:00" names no days`},
		{"mon-fri, 08:00-16:00", `"mon-fri, 08:00-16:00" names no days`},
		{"mon- 08:00-16:00", `"mon- 08:00-16:00" names no days`},
		{"mon-wed-fri 08:00-16:00", `"mon-wed-fri 08:00-16:00" names no days`},
		{"Europe/Stockholm 08:00-16:00", `"Europe/Stockholm 08:00-16:00" names no days`},
		{"08-16", `"08-16" names no days`},
		{"08:00", `"08:00" is no span of hours`},
		{"8:00-16:00", `"8:00-16:00" is no span of hours`},
		{"08:00-16:0", `"08:00-16:0" is no span of hours`},
		{"08:00 -16:00", `"08:00 -16:00" is no span of hours`},
		{"08:00-24:01", `"08:00-24:01" is no span of hours`},
		{"08:60-16:00", `"08:60-16:00" is no span of hours`},
		{"24:00-08:00", `"24:00-08:00" is no span of hours`},
		{"08:00-08:00", `"08:00-08:00" is no span of hours`},
		{"08:00-12:00-16:00", `"08:00-12:00-16:00" is no span of hours`},
		{"08:00-16:00 Europe/Atlantis", `"08:00-16:00 Europe/Atlantis" names no known time zone`},
		{"08:00-16:00 ../../etc/passwd", `"08:00-16:00 ../../etc/passwd" names no known time zone`},
		{"08:00-16:00 Europe/Stockholm summer", `"08:00-16:00 Europe/Stockholm summer" is no span of hours`},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			if _, err := parseHours(tt.in); errText(err) != tt.want+allowed {
				t.Errorf("got  %v\nwant %s", err, tt.want+allowed)
			}
		})
	}
}

func TestHours(t *testing.T) {
	// 2026-03-02 is a Monday; 2026-03-29 and 2026-10-25 are the Sundays on which
	// the clocks of Stockholm change, at 01:00 UTC.
	tests := []struct {
		name, hours string
		at          map[string]bool // RFC 3339
	}{
		{"every day", "08:00-16:00 UTC", map[string]bool{
			"2026-03-02T07:59:59Z": false, "2026-03-02T08:00:00Z": true, "2026-03-02T15:59:59.9Z": true, "2026-03-02T16:00:00Z": false,
			"2026-03-07T12:00:00Z": true, "2026-03-08T12:00:00Z": true,
		}},
		{"whole day", "mon 00:00-24:00 UTC", map[string]bool{
			"2026-03-01T23:59:59Z": false, "2026-03-02T00:00:00Z": true, "2026-03-02T23:59:59Z": true, "2026-03-03T00:00:00Z": false,
		}},
		{"span of days", "Mon-Fri 08:00-16:00 UTC", map[string]bool{
			"2026-03-01T12:00:00Z": false, "2026-03-02T12:00:00Z": true, "2026-03-06T12:00:00Z": true, "2026-03-07T12:00:00Z": false,
		}},
		{"span of days round the week's end", "sat-mon 08:00-16:00 UTC", map[string]bool{
			"2026-03-06T12:00:00Z": false, "2026-03-07T12:00:00Z": true, "2026-03-08T12:00:00Z": true, "2026-03-09T12:00:00Z": true, "2026-03-10T12:00:00Z": false,
		}},
		{"list of days", "mon,wed,fri-sat 08:00-16:00 UTC", map[string]bool{
			"2026-03-02T12:00:00Z": true, "2026-03-03T12:00:00Z": false, "2026-03-04T12:00:00Z": true, "2026-03-05T12:00:00Z": false,
			"2026-03-06T12:00:00Z": true, "2026-03-07T12:00:00Z": true, "2026-03-08T12:00:00Z": false,
		}},
		{"past midnight belongs to the evening", "mon 22:00-06:00 UTC", map[string]bool{
			"2026-03-02T05:00:00Z": false, "2026-03-02T21:59:59Z": false, "2026-03-02T22:00:00Z": true,
			"2026-03-03T00:00:00Z": true, "2026-03-03T05:59:59Z": true, "2026-03-03T06:00:00Z": false, "2026-03-03T22:00:00Z": false,
		}},
		{"past midnight at the week's end", "sat 22:00-06:00 UTC", map[string]bool{
			"2026-03-07T23:00:00Z": true, "2026-03-08T05:00:00Z": true, "2026-03-08T23:00:00Z": false,
		}},
		{"up to midnight", "sun 22:00-24:00 UTC", map[string]bool{
			"2026-03-08T23:59:59Z": true, "2026-03-09T00:00:00Z": false,
		}},
		{"up to midnight as 00:00", "sun 22:00-00:00 UTC", map[string]bool{
			"2026-03-08T23:59:59Z": true, "2026-03-09T00:00:00Z": false, "2026-03-08T00:00:00Z": false,
		}},
		{"zone", "mon 08:00-16:00 Europe/Stockholm", map[string]bool{
			"2026-03-02T06:59:59Z": false, "2026-03-02T07:00:00Z": true, "2026-03-02T08:00:00+01:00": true, "2026-03-02T15:00:00Z": false,
		}},
		{"zone on another day", "mon 08:00-16:00 Pacific/Auckland", map[string]bool{
			"2026-03-01T19:00:00Z": true, "2026-03-02T12:00:00Z": false,
		}},
		{"zone with half an hour", "mon 08:00-16:00 Asia/Kolkata", map[string]bool{
			"2026-03-02T02:29:59Z": false, "2026-03-02T02:30:00Z": true,
		}},
		{"summer time", "08:00-16:00 Europe/Stockholm", map[string]bool{
			"2026-03-28T06:30:00Z": false, "2026-03-28T07:30:00Z": true, "2026-03-28T14:30:00Z": true,
			"2026-03-29T06:30:00Z": true, "2026-03-29T14:30:00Z": false,
			"2026-10-25T06:30:00Z": false, "2026-10-25T14:30:00Z": true,
		}},
		{"the hour that does not exist", "sun 02:00-03:00 Europe/Stockholm", map[string]bool{
			"2026-03-29T00:59:59Z": false, "2026-03-29T01:00:00Z": false, // 01:59:59, then 03:00
		}},
		{"the hour that exists twice", "sun 02:00-03:00 Europe/Stockholm", map[string]bool{
			"2026-10-24T23:59:59Z": false, "2026-10-25T00:30:00Z": true, "2026-10-25T01:30:00Z": true, "2026-10-25T02:00:00Z": false,
		}},
		{"the night in which clocks change", "sat 22:00-06:00 Europe/Stockholm", map[string]bool{
			"2026-03-28T21:00:00Z": true, "2026-03-29T03:59:59Z": true, "2026-03-29T04:00:00Z": false,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := parseHours(tt.hours)
			if err != nil {
				t.Fatal(err)
			}
			for s, want := range tt.at {
				at, err := time.Parse(time.RFC3339, s)
				if err != nil {
					t.Fatal(err)
				}
				if got := h.contain(at); got != want {
					t.Errorf("%q contains %s (%s): %v, want %v", tt.hours, s, at.In(h.zone).Format("Mon 15:04"), got, want)
				}
			}
		})
	}
}

// Without a zone, the machine's counts.
func TestHoursLocal(t *testing.T) {
	h, err := parseHours("mon 08:00-16:00")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.Local)
	if !h.contain(at) || h.contain(at.Add(-time.Minute)) {
		t.Errorf("%v is taken for another zone's", at)
	}
}

// A rule whose request carries no time looks at the clock.
func TestHoursNow(t *testing.T) {
	now := time.Now().UTC()
	day := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	// Yesterday to tomorrow, and the four other days: one contains now, even
	// where midnight passes meanwhile.
	yes := fmt.Sprintf("%s-%s 00:00-24:00 UTC", day[(now.Weekday()+6)%7], day[(now.Weekday()+1)%7])
	no := fmt.Sprintf("%s-%s 00:00-24:00 UTC", day[(now.Weekday()+2)%7], day[(now.Weekday()+5)%7])
	for hours, want := range map[string]Action{yes: Deny, no: Tunnel} {
		p := compile(t, Config{Rules: []Rule{{Name: "r", Then: "deny", When: When{Hours: []string{hours}}}}})
		if d := p.Decide(&Request{Target: target(t, game), Client: ipad, Connect: true}); d.Action != want {
			t.Errorf("%q at %v: %s, want %s", hours, now, d.Action, want)
		}
	}
}

// A span and its complement divide the week.
func TestHoursComplement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.IntRange(0, 24*60-1).Draw(t, "from")
		b := rapid.IntRange(0, 24*60-1).Filter(func(b int) bool { return b != a }).Draw(t, "to")
		zone := rapid.SampledFrom([]string{"UTC", "Europe/Stockholm", "America/Los_Angeles", "Australia/Lord_Howe"}).Draw(t, "zone")
		span := func(a, b int) hours {
			h, err := parseHours(fmt.Sprintf("%02d:%02d-%02d:%02d %s", a/60, a%60, b/60, b%60, zone))
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		at := time.Unix(1_767_225_600, 0).Add(time.Duration(rapid.Int64Range(0, 365*24*3600).Draw(t, "second")) * time.Second)
		if span(a, b).contain(at) == span(b, a).contain(at) {
			t.Fatalf("%v is in both, or neither", at)
		}
	})
}

// Rules with end_open end open tunnels: deny rules when their hours begin, others when
// their hours end and the policy denies what they let through.
func TestEnds(t *testing.T) {
	lesson := []string{"08:00-16:00 UTC"}
	games := When{Hosts: []string{"game.example"}}
	inLessons := When{Hosts: games.Hosts, Hours: lesson}
	at := func(hour int) time.Time { return time.Date(2026, 3, 2, hour, 30, 0, 0, time.UTC) }
	for _, x := range []struct {
		name     string
		rules    []Rule
		auth     bool
		host     string
		admitted string
		hour     int
		by       string
	}{
		{"denied now", []Rule{{Name: "lessons", Then: "deny", When: inLessons, EndOpen: true}}, false, "game.example", RuleDefault, 9, "lessons"},
		{"not yet", []Rule{{Name: "lessons", Then: "deny", When: inLessons, EndOpen: true}}, false, "game.example", RuleDefault, 7, ""},
		{"another host", []Rule{{Name: "lessons", Then: "deny", When: inLessons, EndOpen: true}}, false, "other.example", RuleDefault, 9, ""},
		{"without end_open", []Rule{{Name: "lessons", Then: "deny", When: inLessons}}, false, "game.example", RuleDefault, 9, ""},
		{"no longer allowed", []Rule{{Name: "breaks", Then: "allow", When: inLessons, EndOpen: true}, {Name: "games", Then: "deny", When: games}}, false, "game.example", "breaks", 17, "breaks"},
		{"still allowed", []Rule{{Name: "breaks", Then: "allow", When: inLessons, EndOpen: true}, {Name: "games", Then: "deny", When: games}}, false, "game.example", "breaks", 9, ""},
		{"allowed without the rule too", []Rule{{Name: "breaks", Then: "allow", When: inLessons, EndOpen: true}}, false, "game.example", "breaks", 17, ""},
		{"allowed by another rule", []Rule{{Name: "breaks", Then: "allow", When: inLessons, EndOpen: true}, {Name: "games", Then: "deny", When: games}}, false, "game.example", "earlier", 17, ""},
		{"a user is needed now", []Rule{{Name: "breaks", Then: "allow", When: inLessons, EndOpen: true}}, true, "game.example", "breaks", 17, "breaks"},
		{"Apple", []Rule{{Name: "lessons", Then: "deny", When: When{Hours: lesson}, EndOpen: true}}, false, "www.apple.com", RuleApple, 9, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := compile(t, Config{Rules: x.rules, Auth: x.auth})
			by, ends := p.Ends(&Request{Target: target(t, x.host+":443"), Client: ipad, Connect: true, Time: at(x.hour)}, x.admitted)
			if by != x.by || ends != (x.by != "") {
				t.Errorf("ended by %q, %v; want %q", by, ends, x.by)
			}
		})
	}
	if p := compile(t, Config{Rules: []Rule{{Name: "lessons", Then: "deny", When: inLessons}}}); p.EndsOpen() {
		t.Error("without end_open something ends")
	}
}
