package lint

// builtins are the global names of ES3 (ECMA-262, third edition, section 15.1).
var builtins = set(`Object Function Array String Boolean Number Date RegExp Math
	Error EvalError RangeError ReferenceError SyntaxError TypeError URIError
	NaN Infinity undefined eval parseInt parseFloat isNaN isFinite escape unescape
	decodeURI decodeURIComponent encodeURI encodeURIComponent arguments`)

// reserved are the words that ES3 does not take as names of properties.
var reserved = set(`break case catch class const continue debugger default delete do
	else enum export extends false finally for function if import in instanceof new
	null return super switch this throw true try typeof var void while with`)

// laterMethods are methods that came after ES3.
var laterMethods = set(`at bind codePointAt copyWithin endsWith entries every fill filter
	find findIndex findLast flat flatMap forEach from includes isArray isInteger keys
	map matchAll normalize now of padEnd padStart reduce reduceRight repeat replaceAll
	some startsWith toISOString trim trimEnd trimStart trimLeft trimRight values`)

// later are the global names that came after ES3, said by name since there is
// more to say than that they are not defined.
var later = set(`JSON Map Set WeakMap WeakSet Promise Symbol Proxy Reflect Uint8Array
	Int8Array Uint16Array Int16Array Uint32Array Int32Array Float32Array Float64Array
	ArrayBuffer DataView BigInt globalThis Intl`)

// An objection says why a function should not be used.
type objection struct{ kind, text string }

const (
	waits    = "looks the name up, and the device waits for DNS with every request"
	foreign  = "is not known to Apple's devices"
	byClock  = "makes answers depend on the device's clock"
	asDevice = "answers with any of the device's addresses, or 127.0.0.1; let the server choose a script by the client's address"
)

// discouraged are functions of browsers with what is against their use. Those in
// mildly are warnings, the others errors.
var discouraged = map[string]objection{
	"isResolvable":      {"dns", waits},
	"isResolvableEx":    {"dns", waits},
	"isInNet":           {"dns", waits + "; compare the text of addresses"},
	"dnsResolve":        {"dns", waits},
	"isInNetEx":         {"unsupported", foreign},
	"dnsResolveEx":      {"unsupported", foreign},
	"myIpAddress":       {"client-ip", asDevice},
	"myIpAddressEx":     {"unsupported", foreign + "; let the server choose a script by the client's address"},
	"sortIpAddressList": {"unsupported", foreign},
	"isValidIpAddress":  {"unsupported", foreign},
	"getClientVersion":  {"unsupported", foreign},
	"alert":             {"unsupported", "is not there in every engine, where the script then fails"},
	"eval":              {"eval", "runs text as a script"},
	"shExpMatch":        {"shexpmatch", "is slow, and its patterns (* matches dots and slashes) match more than meant; compare the end of the host"},
	"weekdayRange":      {"clock", byClock},
	"dateRange":         {"clock", byClock},
	"timeRange":         {"clock", byClock},
}

// mildly are those of discouraged that are warnings.
var mildly = set("shExpMatch weekdayRange dateRange timeRange")
