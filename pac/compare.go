package pac

import (
	"context"
	"fmt"
	"strings"
)

// A Change is a URL for which two scripts differ.
type Change struct {
	URL string `json:"url"`
	Old string `json:"old"`
	New string `json:"new"`
}

// Compare asks two scripts about each URL, once, and returns those for which they
// differ, and how many it has asked about. The error says which URL is none, or
// that ctx has ended.
func Compare(ctx context.Context, old, new *Evaluator, urls []string) (changes []Change, asked int, err error) {
	changes = []Change{} // never null in JSON
	seen := map[string]bool{}
	for _, arg := range urls {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		url, host, _, err := DeviceURL(arg)
		if err != nil {
			return nil, 0, err
		}
		if seen[url] {
			continue
		}
		seen[url] = true
		asked++
		if a, b := meaning(old, url, host), meaning(new, url, host); a != b {
			changes = append(changes, Change{url, a, b})
		}
	}
	return changes, asked, nil
}

// meaning is an answer with blanks and letters as they should be, so that only
// what differs in meaning does.
func meaning(script *Evaluator, url, host string) string {
	answer, err := script.FindProxy(url, host)
	if err != nil {
		return "error: " + err.Error()
	}
	hops, err := ParseAnswer(answer)
	if err != nil {
		return fmt.Sprintf("%q, which is no answer", answer)
	}
	var parts []string
	for _, hop := range hops {
		parts = append(parts, strings.TrimSpace(hop.Kind+" "+hop.Proxy))
	}
	return strings.Join(parts, "; ")
}
