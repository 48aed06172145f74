package public

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fetches are requests for the PAC script since the start, by site and kind of
// client.
type Fetches struct {
	Site string `json:"site"` // pac.General outside sites
	// Agent is the kind of client: apple, windows, android, chrome, edge, firefox,
	// safari, tool, none (it does not say) or other.
	Agent string    `json:"agent"`
	Count int64     `json:"count"`
	Last  time.Time `json:"last"`
}

// agentMarks are parts of User-Agent that show the kind of client. The first one
// found decides, for browsers name others beside themselves.
var agentMarks = []struct{ part, agent string }{
	{"CFNetwork", "apple"}, // what fetches for apps of iPadOS and macOS
	{"com.apple.", "apple"},
	{"WinHttp-Autoproxy", "windows"},
	{"WinHTTP", "windows"},
	{"Dalvik/", "android"},
	{"Android", "android"},
	{"Firefox/", "firefox"},
	{"Edg/", "edge"},
	{"Chrome/", "chrome"},
	{"Safari/", "safari"},
	{"curl/", "tool"},
	{"Wget/", "tool"},
	{"python", "tool"},
	{"Go-http-client/", "tool"},
}

// agentKind is one of Fetches.Agent.
func agentKind(userAgent string) string {
	if userAgent == "" {
		return "none"
	}
	for _, m := range agentMarks {
		if strings.Contains(userAgent, m.part) {
			return m.agent
		}
	}
	return "other"
}

// A fetchLog counts who fetches. It holds at most the configured sites times the
// kinds of clients, and is safe for concurrent use.
type fetchLog struct {
	mu     sync.Mutex
	counts map[fetchKey]*Fetches
}

type fetchKey struct{ site, agent string }

func (f *fetchLog) add(site, userAgent string, now time.Time) {
	key := fetchKey{site, agentKind(userAgent)}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.counts[key]
	if c == nil {
		c = &Fetches{Site: site, Agent: key.agent}
		f.counts[key] = c
	}
	c.Count++
	c.Last = now
}

// list returns what was counted, by site, the most frequent first.
func (f *fetchLog) list() []Fetches {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Fetches, 0, len(f.counts))
	for _, c := range f.counts {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Fetches) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Agent, b.Agent))
	})
	return out
}
