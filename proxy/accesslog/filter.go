package accesslog

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
)

// A Filter says which records are wanted: those that meet all that is set. The
// zero value is all records.
type Filter struct {
	From, To time.Time     // From <= time < To; zero: without bound
	Client   netip.Prefix  // addresses in it; the zero Prefix: any
	User     string        // exactly
	Host     string        // a name and all below it, "*.name" only those, an address
	Service  string        // id from the catalogue
	Action   policy.Action //
	Rule     string        // exactly
	// StatusMin and StatusMax bound the status, both inclusive; 0 is no bound.
	StatusMin, StatusMax int
	Error                string        // part of the error, in any case; "*": any error
	MinBytes             int64         // up and down together
	MinDuration          time.Duration //
}

// FilterKeys are the values that ParseFilter takes, as people write them: since
// and until as ParseTime has it, client as an address or CIDR block, status as
// 404, 5xx or 400-499, min_bytes as 10MB, min_duration as 90s or 2d, the others as
// in Filter.
var FilterKeys = []string{
	"since", "until", "client", "user", "host", "service", "action", "rule", "status", "error", "min_bytes", "min_duration",
}

var actions = []policy.Action{policy.Tunnel, policy.Forward, policy.Inspect, policy.Deny, policy.Challenge, policy.Error}

// ParseFilter makes a filter of the values that get returns for FilterKeys, empty
// for those that do not matter. Errors begin with the key, joined.
func ParseFilter(get func(key string) string, now time.Time) (Filter, error) {
	f := Filter{
		User: get("user"), Host: get("host"), Service: get("service"),
		Action: policy.Action(get("action")), Rule: get("rule"), Error: get("error"),
	}
	var errs []error
	parse := func(key string, into func(string) error) {
		if s := strings.TrimSpace(get(key)); s != "" {
			if err := into(s); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", key, err))
			}
		}
	}
	parse("since", func(s string) (err error) { f.From, err = ParseTime(s, now); return err })
	parse("until", func(s string) (err error) { f.To, err = ParseTime(s, now); return err })
	parse("client", func(s string) (err error) { f.Client, err = parseClient(s); return err })
	parse("service", func(s string) error {
		if !catalog.IsService(s) {
			return fmt.Errorf("%q is no service (`espalier catalog list` shows them)", s)
		}
		return nil
	})
	parse("action", func(s string) error {
		if !slices.Contains(actions, policy.Action(s)) {
			return fmt.Errorf("%q is unknown (allowed: tunnel, forward, inspect, deny, challenge, error)", s)
		}
		return nil
	})
	parse("status", func(s string) (err error) { f.StatusMin, f.StatusMax, err = parseStatus(s); return err })
	parse("min_bytes", func(s string) error { return (*ByteSize)(&f.MinBytes).UnmarshalText([]byte(s)) })
	parse("min_duration", func(s string) (err error) { f.MinDuration, err = ParseDuration(s); return err })
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To) {
		errs = append(errs, fmt.Errorf("until: %s is not after since, %s", f.To.Format(time.RFC3339), f.From.Format(time.RFC3339)))
	}
	return f, errors.Join(errs...)
}

func parseClient(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is no address and no CIDR block", s)
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func parseStatus(s string) (low, high int, err error) {
	if len(s) == 3 && strings.EqualFold(s[1:], "xx") && s[0] >= '1' && s[0] <= '9' {
		low = int(s[0]-'0') * 100
		return low, low + 99, nil
	}
	from, to, isRange := strings.Cut(s, "-")
	low, err = strconv.Atoi(from)
	high = low
	if isRange && err == nil {
		high, err = strconv.Atoi(to)
	}
	if err != nil || low < 100 || high < low || high > 999 {
		return 0, 0, fmt.Errorf("%q is no status (wanted: 404, 5xx or 400-499)", s)
	}
	return low, high, nil
}

var durationPattern = regexp.MustCompile(`^(?:(\d{1,3})w)?(?:(\d{1,5})d)?([^-+].*)?$`)

// ParseDuration parses a duration as people write it: 90s, 15m, 2h, 3d or 1w.
func ParseDuration(s string) (time.Duration, error) {
	if parts := durationPattern.FindStringSubmatch(s); parts != nil && s != "" {
		weeks, _ := strconv.Atoi(parts[1])
		days, _ := strconv.Atoi(parts[2])
		d, err := time.ParseDuration(cmp.Or(parts[3], "0"))
		if d += time.Duration(7*weeks+days) * 24 * time.Hour; err == nil && d >= 0 {
			return d, nil
		}
	}
	return 0, fmt.Errorf("%q is no duration (wanted: 90s, 15m, 2h, 3d or 1w)", s)
}

// ParseTime parses a time as people write it, in the zone of now: how long ago
// (90s, 15m, 2h, 3d, 1w), now, today and yesterday (their beginnings), 14:30 (the
// last time that it was), 2026-01-31, "2026-01-31 14:30", or RFC 3339.
func ParseTime(s string, now time.Time) (time.Time, error) {
	midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	switch s {
	case "now":
		return now, nil
	case "today":
		return midnight, nil
	case "yesterday":
		return midnight.AddDate(0, 0, -1), nil
	}
	if d, err := ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{
		"15:04", "15:04:05", time.RFC3339Nano,
		"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05",
	} {
		t, err := time.ParseInLocation(layout, s, now.Location())
		if err != nil {
			continue
		}
		if t.Year() == 0 { // a time of the day
			t = time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location())
			if t.After(now) {
				t = t.AddDate(0, 0, -1)
			}
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is no time (wanted: 15m, 2h, 3d, today, yesterday, 14:30, 2026-01-31 or RFC 3339)", s)
}

// Match reports whether f wants a record, as Search does.
func (f *Filter) Match(r *Record) bool {
	return (f.From.IsZero() || !r.Time.Before(f.From)) &&
		(f.To.IsZero() || r.Time.Before(f.To)) &&
		(!f.Client.IsValid() || r.Client.IsValid() && containsAddr(f.Client, r.Client)) &&
		(f.User == "" || f.User == r.User) &&
		(f.Host == "" || matchHost(f.Host, r.Host)) &&
		(f.Service == "" || f.Service == r.Service) &&
		(f.Action == "" || f.Action == r.Action) &&
		(f.Rule == "" || f.Rule == r.Rule) &&
		r.Status >= f.StatusMin && (f.StatusMax <= 0 || r.Status <= f.StatusMax) &&
		(f.Error == "" || r.Error != "" && (f.Error == "*" || strings.Contains(strings.ToLower(r.Error), strings.ToLower(f.Error)))) &&
		r.Up+r.Down >= f.MinBytes && r.Duration >= f.MinDuration
}

// matchHost reports whether a filter's host means a record's.
func matchHost(pattern, host string) bool {
	stored := storedHost(host)
	want, below := storedPattern(pattern)
	return stored == want && !below || want[0] != '!' && len(stored) > len(want) && strings.HasPrefix(stored, want)
}

// storedPattern is a filter's host as stored, and whether only what is below it
// is meant.
func storedPattern(pattern string) (host string, below bool) {
	host, below = strings.CutPrefix(strings.ToLower(pattern), "*.")
	return storedHost(strings.TrimSuffix(host, ".")), below
}

// containsAddr takes addresses for what they embed, as stored ones are.
func containsAddr(p netip.Prefix, a netip.Addr) bool {
	if bits := p.Bits() - 96; p.Addr().Is4In6() && bits >= 0 {
		p = netip.PrefixFrom(p.Addr().Unmap(), bits)
	}
	return p.Contains(a.Unmap().WithZone(""))
}
