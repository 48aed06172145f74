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

// discouraged are functions of browsers with what is against their use; those
// that wait for the network are errors, the others warnings.
var discouraged = map[string]string{
	"isResolvable":      "looks the name up, and the device waits for DNS with every request",
	"isResolvableEx":    "looks the name up, and the device waits for DNS with every request",
	"isInNet":           "looks the name up, and the device waits for DNS with every request; compare the text of addresses",
	"isInNetEx":         "looks the name up, and is not known to Apple's devices",
	"dnsResolve":        "looks the name up, and the device waits for DNS with every request",
	"dnsResolveEx":      "looks the name up, and is not known to Apple's devices",
	"myIpAddress":       "answers with any of the device's addresses, or 127.0.0.1; let the server choose a script by the client's address",
	"myIpAddressEx":     "is not known to Apple's devices; let the server choose a script by the client's address",
	"sortIpAddressList": "is not known to Apple's devices",
	"getClientVersion":  "is not known to Apple's devices",
	"alert":             "is not there in every engine, where the script then fails",
	"eval":              "runs text as a script",
	"shExpMatch":        "is slow, and its patterns (* matches dots and slashes) match more than meant; compare the end of the host",
	"weekdayRange":      "makes answers depend on the device's clock",
	"dateRange":         "makes answers depend on the device's clock",
	"timeRange":         "makes answers depend on the device's clock",
}

// mildly are those of discouraged that are warnings.
var mildly = set("shExpMatch weekdayRange dateRange timeRange")
