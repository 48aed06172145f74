package console

import (
	"espalier/policy"
)

// actionMeanings explain actions to readers who have not read the manual.
var actionMeanings = map[policy.Action]string{
	policy.Tunnel:    "carried untouched",
	policy.Forward:   "plain HTTP",
	policy.Inspect:   "TLS opened",
	policy.Deny:      "refused by policy",
	policy.Challenge: "asked to sign in",
	policy.Error:     "permitted, but failed",
}

// ruleOfYours explains every other rule than those of ruleMeanings.
const ruleOfYours = "The first rule of yours that matches."

// ruleMeanings explain the rules that are no administrator's.
var ruleMeanings = map[string]string{
	policy.RuleApple:     "The destination is one of Apple’s. Its bytes pass untouched, and nobody is asked to sign in.",
	policy.RuleClients:   "The client’s address is outside `proxy.clients`.",
	policy.RuleRelay:     "Private Relay is blocked by `apple.private_relay`.",
	policy.RulePorts:     "The destination’s port is not in `proxy.ports`, and no rule allows it.",
	policy.RuleAuth:      "The request was to sign in first.",
	policy.RulePresets:   "A header is set there by `presets`.",
	policy.RuleInspect:   "Everything that is not Apple’s or exempt is inspected: `inspect.mode` is all.",
	policy.RuleException: "The host’s clients refuse interception, so that it is tunnelled.",
	policy.RuleDefault:   "No rule matched, and nothing else stood against it.",
	policy.RuleUnknown:   "What cannot be inspected is treated as `inspect.unknown` says.",
	"misdirected":        "The request inside the connection was for another host than the connection.",
	"invalid-target":     "The destination was no valid name with a port.",
	"malformed-request":  "The request was no valid HTTP, or too large.",
	"method":             "The proxy does not pass on that method.",
	"address-guard":      "The destination’s address is one that the proxy must not be led to.",
}

// Texts that the handlers of pages say.
const (
	NoStore       = "Nothing is kept: log.store.path is empty."
	StoreFails    = "The store cannot be searched now; the log of the process says why."
	NoSuchThing   = "There is no such thing, or it is no longer kept."
	RequestFor    = "Request for %s"
	NotNow        = "You cannot be signed in now. Try again in a moment."
	WrongPassword = "The user or the password is wrong."
	Damped        = "Too many sign-ins have failed. Try again in %s."
	LinkIsOver    = "This setup link is not valid any more: it is good once, for an hour, and on this machine only."
	PasswordsVary = "The two passwords differ."
	TrafficOfAll  = "Traffic by service"
	Traffic       = "Traffic"
	ToDevices     = "To devices"
	FromDevices   = "From devices"
	AllOthers     = "all others"
)
