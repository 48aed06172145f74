package public

import (
	"fmt"
	"testing"

	"espalier/pac"
)

func TestAgentKind(t *testing.T) {
	for agent, want := range map[string]string{
		"": "none",
		"CFNetworkAgent (unknown version) CFNetwork/1568.100.1 Darwin/24.0.0":                                       "apple",
		"com.apple.WebKit.Networking/8619 CFNetwork/1568 Darwin/24.0.0":                                             "apple",
		"WinHttp-Autoproxy-Service/5.1":                                                                             "windows",
		"Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8)":                                                              "android",
		"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0":                                    "firefox",
		"Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36":           "chrome",
		"Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36 Edg/130.0": "edge",
		"Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15":             "safari",
		"curl/8.5.0": "tool", "python-requests/2.31": "tool", "x": "other", "\x00\xff": "other",
	} {
		if got := agentKind(agent); got != want {
			t.Errorf("agentKind(%q) = %s, want %s", agent, got, want)
		}
	}
}

// Whatever clients say of themselves, what is kept does not grow.
func TestFetchesAreCounted(t *testing.T) {
	s := newPublicStage(t, pac.Config{Sites: map[string]pac.Site{"school": {}}}, anyAddress, "127.0.0.1:0")
	s.do(t, "GET /proxy.pac"+hostLine)
	s.do(t, "HEAD /pac/school.pac"+hostLine+"\nUser-Agent: curl/8.5.0")
	s.do(t, "GET /pac/nowhere.pac"+hostLine+"\nUser-Agent: curl/8.5.0")
	for i := range 20 {
		s.do(t, fmt.Sprintf("GET /pac/school.pac%s\nUser-Agent: agent-%d", hostLine, i))
	}
	got := ""
	for _, f := range s.Fetches() {
		got += fmt.Sprintf("%s %s %d %v\n", f.Site, f.Agent, f.Count, f.Last.IsZero())
	}
	if want := "default none 1 false\nschool other 20 false\nschool tool 1 false\n"; got != want {
		t.Errorf("Fetches:\n%s\nwant:\n%s", got, want)
	}
}
