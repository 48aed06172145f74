package profile

// ProxyOptions are what may be chosen beside the PAC script's URL.
type ProxyOptions struct {
	// Fallback lets devices connect directly while the script cannot be fetched.
	Fallback bool
	// CaptiveLogin lets devices bypass the proxy for a network's sign-in page.
	CaptiveLogin bool
}

// globalProxy makes a device use the PAC script at pacURL in every network:
// com.apple.proxy.http.global. iOS, iPadOS, tvOS and visionOS require supervision,
// macOS does not.
func globalProxy(pacURL string, o ProxyOptions) payload {
	return payload{kind: "com.apple.proxy.http.global", name: "proxy", title: "Proxy", keys: map[string]any{
		"ProxyType": "Auto", "ProxyPACURL": pacURL,
		"ProxyPACFallbackAllowed": o.Fallback, "ProxyCaptiveLoginAllowed": o.CaptiveLogin,
	}}
}

// networkProxy makes a Mac use the PAC script at pacURL on its network services:
// com.apple.SystemConfiguration.
func networkProxy(pacURL string, o ProxyOptions) payload {
	number := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return payload{kind: "com.apple.SystemConfiguration", name: "payload.network-proxy", title: "Network proxy", keys: map[string]any{
		"Proxies": map[string]any{
			"ProxyAutoConfigEnable": 1, "ProxyAutoConfigURLString": pacURL,
			"FallBackAllowed": number(o.Fallback), "ProxyCaptiveLoginAllowed": number(o.CaptiveLogin),
		},
	}}
}

// noPrivateRelay switches iCloud Private Relay off: com.apple.applicationaccess.
// iOS, iPadOS and visionOS require supervision, macOS does not.
func noPrivateRelay() payload {
	return payload{kind: "com.apple.applicationaccess", name: "payload.restrictions", title: "Private Relay off", keys: map[string]any{
		"allowCloudPrivateRelay": false,
	}}
}
