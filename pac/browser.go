package pac

import (
	_ "embed"
	"encoding/binary"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dop251/goja"
	"github.com/dop251/goja/ast"
)

// An Engine is an implementation of PAC whose functions an Evaluator imitates.
// TestFunctionsAgreeWithEngines compares them with the real one.
type Engine string

const (
	// Chromium is the engine of Chrome, Edge and Android's WebView.
	Chromium Engine = "chromium"
	// Pacparser is the C library of that name, with the functions of old Mozilla.
	Pacparser Engine = "pacparser"
)

// Engines are all engines.
var Engines = []Engine{Chromium, Pacparser}

// A Browser is what a script learns of its surroundings.
type Browser struct {
	// Engine is Chromium if empty.
	Engine Engine
	// Client is what myIpAddress returns; 127.0.0.1 if invalid.
	Client netip.Addr
	// Now is the time for the whole of the script's life; if zero, the clock's.
	Now time.Time
	// Hosts are the addresses of names. Other names do not resolve, except
	// localhost.
	Hosts map[string]netip.Addr
}

// NewBrowserEvaluator is NewEvaluator for scripts of any origin, which find the
// functions that an engine offers. It looks no name up, and alert does nothing.
func NewBrowserEvaluator(script []byte, b Browser) (*Evaluator, error) {
	text, _ := Decode(script)
	return newEvaluator([]byte(text), evalLimit, &b)
}

// BrowserFunctions are the names of the functions that browsers offer to PAC
// scripts, and whether Apple's devices have to wait for DNS or the network to
// answer there.
var BrowserFunctions = map[string]bool{
	"isPlainHostName": false, "dnsDomainIs": false, "localHostOrDomainIs": false, "dnsDomainLevels": false,
	"shExpMatch": false, "weekdayRange": false, "dateRange": false, "timeRange": false, "convert_addr": false,
	"isValidIpAddress": false, "alert": false, "getClientVersion": false, "sortIpAddressList": false, "isInNetEx": true,
	"isResolvable": true, "isResolvableEx": true, "isInNet": true, "dnsResolve": true, "dnsResolveEx": true,
	"myIpAddress": true, "myIpAddressEx": true,
}

//go:embed clock.js
var clockSource string

var clock = goja.MustCompile("clock.js", clockSource, true)

// differing are the functions that engines have not, or that differ for arguments of
// every kind. The others set host.differs where they do.
var differing = map[string]bool{
	"alert": true, "console": true, "isValidIpAddress": true, "sortIpAddressList": true, "isInNetEx": true, "isResolvableEx": true,
	"dnsResolveEx": true, "weekdayRange": true, "dateRange": true, "timeRange": true,
	// By these a script reaches the former without their names.
	"eval": true, "Function": true, "constructor": true, "globalThis": true,
}

// mayDiffer reports whether a script can find out which engine it runs in, other
// than by calls that set host.differs.
func mayDiffer(tree *ast.Program) (found bool) {
	Walk(tree, func(n any) bool {
		switch n := n.(type) {
		case *ast.Identifier:
			found = found || differing[n.Name.String()]
		case *ast.StringLiteral:
			found = found || differing[n.Value.String()]
		case *ast.DotExpression:
			found = found || differing[n.Identifier.Name.String()]
		case *ast.ThisExpression:
			found = true
		}
		return !found
	})
	return found
}

// A host is a Browser in a runtime.
type host struct {
	Browser
	differs  bool // a call was answered as another engine would not
	vm       *goja.Runtime
	regExp   *goja.Object
	test     goja.Callable
	patterns map[string]goja.Value // regular expressions by the pattern of shExpMatch
}

// maxPatterns bounds how many regular expressions a host keeps.
const maxPatterns = 20_000

// install defines the functions of the engine.
func (b Browser) install(vm *goja.Runtime) (*host, error) {
	if b.Engine == "" {
		b.Engine = Chromium
	}
	h := &host{Browser: b, vm: vm, patterns: map[string]goja.Value{}}
	h.regExp = vm.Get("RegExp").ToObject(vm)
	h.test, _ = goja.AssertFunction(h.regExp.Get("prototype").ToObject(vm).Get("test"))
	if !b.Now.IsZero() {
		vm.SetTimeSource(func() time.Time { return b.Now })
	}
	functions := map[string]func(goja.FunctionCall) goja.Value{
		"isPlainHostName": h.isPlainHostName, "dnsDomainIs": h.dnsDomainIs, "localHostOrDomainIs": h.localHostOrDomainIs,
		"dnsDomainLevels": h.dnsDomainLevels, "shExpMatch": h.shExpMatch, "convert_addr": h.convertAddr,
		"isResolvable": h.isResolvable, "isResolvableEx": h.isResolvableEx, "dnsResolve": h.dnsResolve, "dnsResolveEx": h.dnsResolveEx,
		"isInNet": h.isInNet, "isInNetEx": h.isInNetEx, "myIpAddress": h.myIPAddress, "myIpAddressEx": h.myIPAddress,
	}
	if b.Engine == Chromium {
		nothing := func(goja.FunctionCall) goja.Value { return goja.Undefined() }
		functions["alert"] = nothing
		functions["isValidIpAddress"] = func(c goja.FunctionCall) goja.Value { return vm.ToValue(isQuad(c.Argument(0).String())) }
		functions["sortIpAddressList"] = h.sortIPAddressList
		console := vm.NewObject()
		for _, name := range []string{"log", "info", "warn", "error", "debug"} {
			_ = console.Set(name, nothing)
		}
		if err := vm.Set("console", console); err != nil {
			return nil, err
		}
	}
	for name, f := range functions {
		if err := vm.Set(name, f); err != nil {
			return nil, err
		}
	}
	define, err := vm.RunProgram(clock)
	if err != nil {
		return nil, err
	}
	call, _ := goja.AssertFunction(define)
	_, err = call(goja.Undefined(), vm.GlobalObject(), vm.ToValue(b.Engine == Chromium))
	return h, err
}

// text returns an argument that must be a string; the script finds a TypeError
// otherwise.
func (h *host) text(v goja.Value) string {
	s, ok := v.Export().(string)
	if !ok {
		panic(h.vm.NewTypeError("%s is not a string", v))
	}
	return s
}

func (h *host) isPlainHostName(c goja.FunctionCall) goja.Value {
	name := h.text(c.Argument(0))
	plain := !strings.Contains(name, ".")
	if plain && literal(name).IsValid() {
		h.differs = true
		plain = h.Engine != Chromium
	}
	return h.vm.ToValue(plain)
}

func (h *host) dnsDomainIs(c goja.FunctionCall) goja.Value {
	name, isName := c.Argument(0).Export().(string)
	domain, isDomain := c.Argument(1).Export().(string)
	if !isName || !isDomain {
		for _, v := range []goja.Value{c.Argument(0), c.Argument(1)} {
			if _, object := v.(*goja.Object); object || goja.IsUndefined(v) || goja.IsNull(v) {
				panic(h.vm.NewTypeError("%s is not a string", v))
			}
		}
		return h.vm.ToValue(false)
	}
	return h.vm.ToValue(strings.HasSuffix(name, domain))
}

func (h *host) localHostOrDomainIs(c goja.FunctionCall) goja.Value {
	name, whole := c.Argument(0), c.Argument(1)
	return h.vm.ToValue(name.Equals(whole) || strings.HasPrefix(h.text(whole), name.String()+"."))
}

func (h *host) dnsDomainLevels(c goja.FunctionCall) goja.Value {
	return h.vm.ToValue(strings.Count(h.text(c.Argument(0)), "."))
}

// shExpMatch matches as the engines do: the pattern becomes a regular expression
// in which only the dot, * and ? are translated.
func (h *host) shExpMatch(c goja.FunctionCall) goja.Value {
	pattern := h.text(c.Argument(1))
	s := c.Argument(0).String()
	if !strings.ContainsAny(pattern, `\^$+()[]{}|`) && ascii(s) && ascii(pattern) && !strings.ContainsAny(s, "\r\n") {
		return h.vm.ToValue(glob(s, pattern))
	}
	re := h.patterns[pattern]
	if re == nil {
		if nothingToRepeat.MatchString("^" + pattern) { // which goja lets pass
			h.syntaxError("nothing to repeat in the pattern " + pattern)
		}
		source := "^" + strings.NewReplacer(".", `\.`, "*", ".*", "?", ".").Replace(pattern) + "$"
		o, err := h.vm.New(h.regExp, h.vm.ToValue(plainClasses(source)))
		if err != nil {
			panic(err)
		}
		if re = o; len(h.patterns) < maxPatterns {
			h.patterns[pattern] = re
		}
	}
	matched, err := h.test(re, h.vm.ToValue(s))
	if err != nil {
		panic(err)
	}
	return matched
}

// nothingToRepeat matches a pattern with + or {n} behind what cannot be repeated.
var nothingToRepeat = regexp.MustCompile(`^([^\\\[]|\\.|\[(\\.|[^\]\\])*\])*?[(|^$](\+|\{\d+(,\d*)?\})`)

// plainClasses escapes [ within the classes of a regular expression, where goja reads
// [:alpha:] as POSIX does.
func plainClasses(source string) string {
	var b strings.Builder
	class := false
	for i := 0; i < len(source); i++ {
		switch c := source[i]; {
		case c == '\\' && i+1 < len(source):
			b.WriteByte(c)
			i++
		case class && c == '[':
			b.WriteByte('\\')
		case c == '[':
			class = true
		case c == ']':
			class = false
		}
		b.WriteByte(source[i])
	}
	return b.String()
}

// syntaxError throws a SyntaxError in the script.
func (h *host) syntaxError(message string) {
	o, err := h.vm.New(h.vm.Get("SyntaxError"), h.vm.ToValue(message))
	if err != nil {
		panic(err)
	}
	panic(o)
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// glob matches the whole of s, where * is any characters and ? is one.
func glob(s, pattern string) bool {
	star, back := -1, 0 // behind the last star, and what it has swallowed up to
	i, p := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			p++
			star, back = p, i
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			i, p = i+1, p+1
		case star >= 0:
			back++
			i, p = back, star
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// resolve returns the IPv4 address of a name or literal, the zero Addr for none.
func (h *host) resolve(name string) netip.Addr {
	a := literal(name)
	if !a.IsValid() {
		a = h.lookUp(name)
	}
	if a.Is4In6() {
		h.differs = true
		if h.Engine == Pacparser {
			a = a.Unmap()
		}
	}
	if !a.Is4() {
		return netip.Addr{}
	}
	return a
}

func (h *host) lookUp(name string) netip.Addr {
	if a, ok := h.Hosts[strings.ToLower(name)]; ok {
		return a
	}
	if strings.EqualFold(name, "localhost") {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.Addr{}
}

// name is an argument of a function that looks names up; empty if it is none.
func (h *host) name(v goja.Value) string {
	s, ok := v.Export().(string)
	if !ok && !goja.IsUndefined(v) && !goja.IsNull(v) {
		h.differs = true
		if h.Engine == Pacparser {
			s = v.String()
		}
	}
	return s
}

func (h *host) dnsResolve(c goja.FunctionCall) goja.Value {
	a := h.resolve(h.name(c.Argument(0)))
	if !a.IsValid() {
		return goja.Null()
	}
	return h.vm.ToValue(a.String())
}

func (h *host) isResolvable(c goja.FunctionCall) goja.Value {
	return h.vm.ToValue(h.resolve(h.name(c.Argument(0))).IsValid())
}

func (h *host) dnsResolveEx(c goja.FunctionCall) goja.Value {
	if h.Engine == Chromium && len(c.Arguments) == 0 {
		return goja.Undefined()
	}
	name := h.name(c.Argument(0))
	if a, err := netip.ParseAddr(name); err == nil && a.Zone() == "" {
		if h.Engine == Pacparser {
			name = a.String()
		}
		return h.vm.ToValue(name)
	}
	if a := h.lookUp(name); a.IsValid() {
		return h.vm.ToValue(a.String())
	}
	return h.vm.ToValue("")
}

func (h *host) isResolvableEx(c goja.FunctionCall) goja.Value {
	// pacparser compares what dnsResolveEx returns, never null, with null.
	return h.vm.ToValue(h.Engine == Pacparser || h.dnsResolveEx(c).String() != "")
}

func (h *host) myIPAddress(goja.FunctionCall) goja.Value {
	if !h.Client.IsValid() {
		return h.vm.ToValue("127.0.0.1")
	}
	return h.vm.ToValue(h.Client.Unmap().String())
}

func (h *host) isInNet(c goja.FunctionCall) goja.Value {
	address, network, mask := c.Argument(0), c.Argument(1), c.Argument(2)
	no := h.vm.ToValue(false)
	if !(isQuad(network.String()) && isQuad(mask.String())) {
		h.differs = true
		if h.Engine == Chromium {
			return no
		}
	}
	text := address.String()
	if !isQuad(text) {
		if h.Engine == Pacparser && quadForm(text) {
			return no // a byte above 255
		}
		a := h.resolve(h.name(address))
		if !a.IsValid() {
			return no
		}
		text = a.String()
	}
	m := h.bits(h.text(mask))
	return h.vm.ToValue(h.bits(text)&m == h.bits(h.text(network))&m)
}

func (h *host) convertAddr(c goja.FunctionCall) goja.Value {
	return h.vm.ToValue(int32(h.bits(h.text(c.Argument(0)))))
}

// bits reads the first four numbers between dots, each of which JavaScript
// converts; what is not a number is 0.
func (h *host) bits(s string) uint32 {
	var n uint32
	parts := strings.Split(s, ".")
	for i := range 4 {
		n <<= 8
		if i < len(parts) {
			n |= uint32(h.vm.ToValue(parts[i]).ToNumber().ToInteger()) & 0xff
		}
	}
	return n
}

// quadForm reports whether s is four groups of one to three digits, and isQuad
// whether each is at most 255 as well. Leading zeros are of no meaning.
func quadForm(s string) bool {
	parts := strings.Split(s, ".")
	return len(parts) == 4 && !slices.ContainsFunc(parts, func(p string) bool {
		return len(p) < 1 || len(p) > 3 || strings.Trim(p, "0123456789") != ""
	})
}

func isQuad(s string) bool {
	return quadForm(s) && !slices.ContainsFunc(strings.Split(s, "."), func(p string) bool {
		n, _ := strconv.Atoi(p)
		return n > 255
	})
}

// literal reads an address as inet_aton and URLs do: an IPv6 address without a
// zone, or one to four numbers, decimal, octal or hexadecimal, of which the last
// fills the rest. The zero Addr is none.
func literal(s string) netip.Addr {
	if strings.Contains(s, ":") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Addr{}
		}
		return a
	}
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}
	}
	var n uint64
	for i, p := range parts {
		base := 10
		switch {
		case len(p) > 2 && (strings.HasPrefix(p, "0x") || strings.HasPrefix(p, "0X")):
			p, base = p[2:], 16
		case len(p) > 1 && p[0] == '0':
			base = 8
		}
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts))
		}
		v, err := strconv.ParseUint(p, base, bits)
		if err != nil || strings.HasPrefix(p, "+") {
			return netip.Addr{}
		}
		n = n<<bits | v
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b)
}

func (h *host) isInNetEx(c goja.FunctionCall) goja.Value {
	name, isName := c.Argument(0).Export().(string)
	block, isBlock := c.Argument(1).Export().(string)
	if h.Engine == Chromium && !(isName && isBlock) {
		return goja.Null()
	}
	if h.Engine == Pacparser {
		name, block = c.Argument(0).String(), h.text(c.Argument(1))
	}
	network, length, ok := strings.Cut(block, "/")
	if !ok || strings.Contains(length, "/") {
		return h.vm.ToValue(false)
	}
	if h.Engine == Chromium {
		return h.vm.ToValue(inBlock(literal(name), literal(network), length))
	}
	n := h.vm.ToValue(length).ToNumber()
	if quadForm(name) {
		if n.ToFloat() > 32 {
			return h.vm.ToValue(false)
		}
		return h.isInNet(goja.FunctionCall{Arguments: []goja.Value{c.Argument(0), h.vm.ToValue(network), h.vm.ToValue(oldMask(int32(n.ToInteger())))}})
	}
	h.text(c.Argument(0))
	if n.ToInteger() == 0 {
		return h.vm.ToValue(true)
	}
	a, errA := netip.ParseAddr(name)
	b, errB := netip.ParseAddr(network)
	if errA != nil || errB != nil || n.ToInteger() > 128 || n.ToInteger() < 0 {
		return h.vm.ToValue(false)
	}
	prefix := netip.PrefixFrom(netip.AddrFrom16(b.As16()), int(n.ToInteger()))
	return h.vm.ToValue(samePrefix(netip.AddrFrom16(a.As16()), prefix))
}

// inBlock reports whether a is in the block; IPv4 addresses and those mapped into
// IPv6 are the same.
func inBlock(a, network netip.Addr, length string) bool {
	n, err := strconv.ParseUint(length, 10, 8)
	if err != nil || !a.IsValid() || !network.IsValid() || int(n) > network.BitLen() {
		return false
	}
	if a.Unmap().Is4() != network.Unmap().Is4() {
		return false
	}
	if network.Is4() {
		n += 96
	}
	return samePrefix(netip.AddrFrom16(a.As16()), netip.PrefixFrom(netip.AddrFrom16(network.As16()), int(n)))
}

// samePrefix is Contains without the rule that IPv4-mapped addresses are in no
// block. Both are of 16 bytes.
func samePrefix(a netip.Addr, block netip.Prefix) bool {
	x, y := a.As16(), block.Addr().As16()
	whole, rest := block.Bits()/8, block.Bits()%8
	return string(x[:whole]) == string(y[:whole]) && (rest == 0 || x[whole]>>(8-rest) == y[whole]>>(8-rest))
}

// oldMask is the mask that pacparser makes of a prefix length: shifts count modulo
// 32, so that a length of 0 leaves the last byte.
func oldMask(length int32) string {
	var parts []string
	for i := int32(1); i <= 4; i++ {
		b := int32(255)
		if shift := 8*i - length; shift > 0 {
			b = b >> (shift & 31) << (shift & 31)
		}
		parts = append(parts, strconv.Itoa(int(b)))
	}
	return strings.Join(parts, ".")
}

func (h *host) sortIPAddressList(c goja.FunctionCall) goja.Value {
	list, ok := c.Argument(0).Export().(string)
	if !ok {
		return goja.Null()
	}
	type entry struct {
		text string
		addr netip.Addr
	}
	var entries []entry
	for part := range strings.SplitSeq(list, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		a := literal(part)
		if !a.IsValid() {
			return h.vm.ToValue(false)
		}
		entries = append(entries, entry{part, a})
	}
	if len(entries) == 0 {
		return h.vm.ToValue(false)
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		if a.addr.Is4() != b.addr.Is4() {
			if a.addr.Is4() {
				return 1
			}
			return -1
		}
		return a.addr.Compare(b.addr)
	})
	var texts []string
	for _, e := range entries {
		texts = append(texts, e.text)
	}
	return h.vm.ToValue(strings.Join(texts, ";"))
}

// EngineNames are the names of Engines, in a text.
func EngineNames() string {
	var names []string
	for _, e := range Engines {
		names = append(names, string(e))
	}
	return strings.Join(names, ", ")
}
