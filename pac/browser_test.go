package pac

import (
	"net/netip"
	"testing"
)

func TestBrowserFunctions(t *testing.T) {
	for call, want := range map[string]string{
		`isPlainHostName("intranet")`: "true", `isPlainHostName("a.example")`: "false", `isPlainHostName("::1")`: "false",
		`dnsDomainIs("www.a.example", ".a.example")`: "true", `dnsDomainIs("a.example", "b.example")`: "false",
		`localHostOrDomainIs("www", "www.a.example")`: "true", `localHostOrDomainIs("www.a.example", "www.a.example")`: "true",
		`localHostOrDomainIs("www.b.example", "www.a.example")`: "false", `localHostOrDomainIs("ww", "www.a.example")`: "false",
		`dnsDomainLevels("www.a.example")`:     "2",
		`shExpMatch("www.a.example", "*.a.*")`: "true", `shExpMatch("a.example", "*.a.example")`: "false",
		`shExpMatch("abc", "a?c")`: "true", `shExpMatch("a.c", "a[.]c")`: "false", `shExpMatch("", "")`: "true", `shExpMatch("", "**")`: "true",
		`shExpMatch("aaab", "*a*b")`: "true", `shExpMatch("aaab", "*a*c")`: "false", `shExpMatch("abcabc", "*abc")`: "true", `shExpMatch("ab", "a")`: "false",
		`isInNet("10.1.2.3", "10.0.0.0", "255.0.0.0")`: "true", `isInNet("11.1.2.3", "10.0.0.0", "255.0.0.0")`: "false",
		`isInNet("a.example", "0.0.0.0", "0.0.0.0")`: "false", `isInNet("10.1.2.3", "x", "y")`: "false",
		`isInNetEx("fd00::1", "fd00::/8")`: "true", `isInNetEx("a.example", "0.0.0.0/0")`: "false",
		`isResolvable("a.example")`: "false", `isResolvableEx("192.0.2.1")`: "true",
		`dnsResolve("a.example")`: "null", `dnsResolveEx("192.0.2.1")`: "192.0.2.1",
		`convert_addr("1.2.3.4")`: "16909060", `convert_addr("x")`: "0",
		`myIpAddress()`: "192.0.2.9", `myIpAddressEx()`: "192.0.2.9", `sortIpAddressList("b;a")`: "b;a", `getClientVersion()`: "1.0",
		`weekdayRange("MON", "SUN")`: "false", `timeRange(0, 23)`: "false", `dateRange(1, 31)`: "false", `alert("x")`: "undefined",
	} {
		e, err := NewBrowserEvaluator([]byte(`function FindProxyForURL(url, host) { return String(`+call+`); }`), netip.MustParseAddr("192.0.2.9"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := e.FindProxy("", ""); err != nil || got != want {
			t.Errorf("%s = %s, %v; want %s", call, got, err, want)
		}
	}
	for name := range browserFunctions(netip.Addr{}) {
		if _, ok := BrowserFunctions[name]; !ok {
			t.Errorf("BrowserFunctions lacks %s", name)
		}
	}
	if len(BrowserFunctions) != len(browserFunctions(netip.Addr{})) {
		t.Error("BrowserFunctions has functions that scripts do not find")
	}
}
