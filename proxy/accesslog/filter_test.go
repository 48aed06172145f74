package accesslog

import (
	"strings"
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("there", 2*60*60)
	now := time.Date(2026, 3, 10, 14, 0, 0, 0, zone)
	for s, want := range map[string]string{
		"now":                       "2026-03-10T14:00:00+02:00",
		"90s":                       "2026-03-10T13:58:30+02:00",
		"1h30m":                     "2026-03-10T12:30:00+02:00",
		"2d":                        "2026-03-08T14:00:00+02:00",
		"1w1d12h":                   "2026-03-02T02:00:00+02:00",
		"today":                     "2026-03-10T00:00:00+02:00",
		"yesterday":                 "2026-03-09T00:00:00+02:00",
		"13:30":                     "2026-03-10T13:30:00+02:00",
		"14:30":                     "2026-03-09T14:30:00+02:00",
		"13:59:59":                  "2026-03-10T13:59:59+02:00",
		"2026-01-31":                "2026-01-31T00:00:00+02:00",
		"2026-01-31 14:30":          "2026-01-31T14:30:00+02:00",
		"2026-01-31T14:30:05":       "2026-01-31T14:30:05+02:00",
		"2026-01-31T14:30:05Z":      "2026-01-31T14:30:05Z",
		"2026-01-31T14:30:05+01:00": "2026-01-31T14:30:05+01:00",
	} {
		if got, err := ParseTime(s, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %s, %v; want %s", s, got.Format(time.RFC3339), err, want)
		}
	}
	for _, s := range []string{"", "soon", "-1h", "1", "d", "1d-1h", "25:00", "2026-02-30", "99999999w"} {
		if got, err := ParseTime(s, now); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestParseFilter(t *testing.T) {
	now := time.Date(2026, 3, 10, 14, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		key, value string
		want       string // the error begins so; empty: it is taken
	}{
		{"status", "404", ""}, {"status", "5xx", ""}, {"status", "400-499", ""},
		{"status", "6xy", "status: "}, {"status", "99", "status: "}, {"status", "500-400", "status: "}, {"status", "-", "status: "},
		{"client", "10.1.2.3", ""}, {"client", "::ffff:10.1.2.3", ""}, {"client", "10.1.2.3/8", ""}, {"client", "fe80::1%eth0", "client: "}, {"client", "pad", "client: "},
		{"min_bytes", "10MB", ""}, {"min_bytes", "-1", "min_bytes: "},
		{"min_duration", "2d", ""}, {"min_duration", "2", "min_duration: "},
		{"until", "1h", ""}, {"since", "1h", ""}, {"since", "x", "since: "},
		{"service", "push", ""}, {"service", "Push", "service: "},
		{"action", "deny", ""}, {"action", "block", "action: "},
		{"error", "*", ""},
	} {
		f, err := ParseFilter(func(key string) string {
			if key == c.key {
				return c.value
			}
			return ""
		}, now)
		switch {
		case c.want == "" && (err != nil || f == Filter{}):
			t.Errorf("%s=%s: %+v, %v", c.key, c.value, f, err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)):
			t.Errorf("%s=%s: %v", c.key, c.value, err)
		}
	}
}
