package web

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/traffic"
	"espalier/web/console"
)

// actionMeanings explain actions to whoever has not read the manual.
var actionMeanings = map[policy.Action]string{
	policy.Tunnel:    "carried untouched",
	policy.Forward:   "plain HTTP",
	policy.Inspect:   "TLS opened",
	policy.Deny:      "refused by policy",
	policy.Challenge: "asked to sign in",
	policy.Error:     "permitted, but failed",
}

// overview makes the first page of the console.
func overview(st Status, services []traffic.Snapshot, now time.Time) console.Overview {
	page := console.Overview{
		Version: st.Version, Node: st.Node, Now: now, Started: st.Started, Uptime: ago(now.Sub(st.Started)),
		Draining: st.Draining, Overloaded: st.Overloaded, PACURL: st.PACURL, Proxy: st.Proxy,
		Config: console.Config{
			File: st.Reload.File, OK: st.Reload.OK, Problems: st.Reload.Problems,
			Tried: st.Reload.Time, TriedAgo: ago(now.Sub(st.Reload.Time)),
			Loaded: st.Reload.Loaded, LoadedAgo: ago(now.Sub(st.Reload.Loaded)),
		},
	}
	if l := st.AccessLog; l.Error != "" || l.Lost > 0 {
		page.AccessLog = &console.AccessLog{Error: l.Error, Since: l.Since, Lost: strconv.FormatUint(l.Lost, 10), Some: l.Lost > 0}
	}
	if st.CA != nil {
		page.CA = st.CA.Warnings
	}
	for _, l := range st.Lists {
		view := console.List{
			Name: l.Name, Source: l.Source, Entries: count(int64(l.Entries)), Loaded: l.Loaded, Stale: l.Stale, Error: l.Error,
		}
		if l.BadLines > 0 {
			view.BadLines = count(int64(l.BadLines))
		}
		if !l.Loaded.IsZero() {
			view.LoadedAgo = ago(now.Sub(l.Loaded))
		}
		page.Lists = append(page.Lists, view)
	}
	for _, p := range st.PACProxies {
		if !p.Up {
			page.ProxiesDown = append(page.ProxiesDown, console.ProxyDown{Proxy: p.Proxy, Since: p.Since, Error: p.Error})
		}
	}
	for _, f := range st.PACFetches {
		page.Fetches = append(page.Fetches, console.Fetches{Site: f.Site, Agent: f.Agent, Count: count(f.Count), Last: f.Last, LastAgo: ago(now.Sub(f.Last))})
	}
	for _, l := range st.Listeners {
		page.Listeners = append(page.Listeners, console.Listener(l))
	}

	var up, down, other, requests int64
	byAction := map[policy.Action]int64{}
	for _, s := range services {
		up, down, requests = up+s.Up, down+s.Down, requests+s.Total()
		if s.Service == catalog.Other {
			other = s.Bytes()
		}
		for a, n := range s.Requests {
			byAction[a] += n
		}
	}
	bytes := up + down
	page.Down, page.Up = size(down), size(up)
	page.Requests, page.Tunnels = count(requests), count(st.Tunnels)
	if bytes > 0 {
		page.AppleShare = percent(bytes-other, bytes)
	}

	services = slices.Clone(services)
	slices.SortStableFunc(services, func(a, b traffic.Snapshot) int {
		return cmp.Or(cmp.Compare(b.Bytes(), a.Bytes()), cmp.Compare(b.Total(), a.Total()))
	})
	for _, s := range services {
		view := console.Service{
			ID: s.Service, Name: serviceName(s.Service), Apple: s.Service != catalog.Other,
			Share: percent(s.Bytes(), bytes), Width: bar(s.Bytes(), bytes),
			Up: size(s.Up), Down: size(s.Down), Requests: count(s.Total()), Tunnels: count(s.Tunnels),
			Errors: count(s.Requests[policy.Error]), Failed: s.Requests[policy.Error] > 0,
		}
		if s.Bytes() == 0 && s.Total() == 0 && s.Tunnels == 0 {
			page.Quiet = append(page.Quiet, view)
		} else {
			page.Services = append(page.Services, view)
		}
	}
	offset := 0.0
	for _, a := range traffic.Actions {
		w := width(byAction[a], requests)
		page.Actions = append(page.Actions, console.Action{
			ID: string(a), Meaning: actionMeanings[a],
			Count: count(byAction[a]), Share: percent(byAction[a], requests), Offset: offset, Width: w,
		})
		offset += w
	}
	return page
}

// width is part of whole in hundredths.
func width(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// bar is the width of a bar, which something never leaves invisible.
func bar(part, whole int64) float64 {
	if part == 0 {
		return 0
	}
	return max(width(part, whole), 0.8)
}

// percent never rounds something to nothing, nor a part to the whole.
func percent(part, whole int64) string {
	switch p := width(part, whole); {
	case part == 0 || part == whole && whole > 0:
		return strconv.FormatFloat(p, 'f', 0, 64) + " %"
	case p < 0.1:
		return "< 0.1 %"
	case p > 99.9:
		return "> 99.9 %"
	default:
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	}
}

// size writes bytes in decimal units, three digits of them.
func size(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, units := float64(n), "kMGTPE"
	unit := -1
	for f >= 999.5 && unit < len(units)-1 {
		f, unit = f/1000, unit+1
	}
	digits := 0
	if f < 9.995 {
		digits = 2
	} else if f < 99.95 {
		digits = 1
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + units[unit:unit+1] + "B"
}

// count writes n with commas between the thousands.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// ago writes a duration in its two largest units.
func ago(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 60*60:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 24*60*60:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
	}
}
