package hostset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/gaissmai/bart"
	"golang.org/x/text/encoding"
	utf "golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"espalier/policy"
)

// Limits of what Parse takes.
const (
	// MaxBytes bounds a list, as it comes and unpacked.
	MaxBytes = 256 << 20
	// MaxEntries bounds the entries of a list.
	MaxEntries = 10_000_000
)

const (
	maxLine  = 64 << 10 // a longer line is bad
	keptBad  = 10       // bad lines that a Report has
	keptText = 100      // bytes of each

	keptSkipped = 3   // skipped lines that a Report has
	maxEntry    = 255 // bytes of an entry
)

// ErrHTML says that what was given for a list is a page, such as that of a
// network where somebody has to sign in first.
var ErrHTML = errors.New("is a web page, no list")

// A Report says what Parse made of the lines.
type Report struct {
	// Lines that are not empty, comments among them.
	Lines int
	// Skipped lines are rules of an ad blocker that are about more or other than
	// hosts: parts of pages, paths, patterns, options that limit a rule to some
	// requests.
	Skipped int
	// Bad lines make no sense.
	Bad int
	// First are the first bad lines, and FirstSkipped the first that were skipped, a few.
	First, FirstSkipped []BadLine
}

// A BadLine is a line that makes no sense.
type BadLine struct {
	Line int    `json:"line"` // from 1
	Text string `json:"text"` // its beginning, printable
	Why  string `json:"why"`
}

func (b BadLine) String() string { return fmt.Sprintf("%d: %q: %s", b.Line, b.Text, b.Why) }

// Parse reads a list, which may be packed with gzip. Of an archive (tar, tar.gz or zip) it reads
// the file that member means, a pattern as MatchMember has it; member may be empty if there is
// only one. Every line may be in any of these forms:
//
//	0.0.0.0 name name   as in a hosts file, or 0 name: exactly these names. Names such as
//	                    localhost, which every hosts file has, are ignored.
//	name                the name and all below it; *.name and .name mean the same,
//	                    as in the lists that are written so. It needs a dot.
//	address             the address
//	address/bits        the addresses of a block, also address/netmask
//	http://name/path    the path and what is below it, see MatchURL; also name/path
//	||name^             as ad blockers have it: the name and all below it
//	@@||name^           neither the name nor any below it, whatever else is said
//	address=/name/…     as dnsmasq has it, and server= and local=: the name and all below it
//	local-zone: …       as unbound has it, and local-data: the name, and all below a zone
//	name CNAME .        a response policy zone (RPZ): exactly the name; *.name: all below it
//
// The text may be in UTF-16 if it begins with a byte order mark.
//
// Of ad blockers' options these are honoured: $important, which makes a rule win
// over exceptions without it, and, where hosts are not excepted, $all, $doc and
// $document. Rules with others are skipped, since what they block is blocked for
// some requests only, and a proxy cannot tell for which. So is all that is no
// rule about a host.
//
// What stands behind # is a comment, as are lines that begin with ! and headers
// in brackets. A line of more than 64 KiB is bad. Names become what
// policy.ParseHost makes of them.
//
// The error says why there is no set, to be put behind the name of the list: it
// is a web page, cannot be read or unpacked, or is larger than MaxBytes or
// MaxEntries. Bad lines are no error.
func Parse(r io.Reader, member string) (*Set, Report, error) {
	return parse(r, member, MaxBytes, MaxEntries)
}

func parse(r io.Reader, member string, maxBytes int64, maxEntries int) (*Set, Report, error) {
	p := parser{max: maxEntries}
	in, rest, err := unpack(limited(r, maxBytes), member, maxBytes)
	if err != nil {
		return nil, p.report, err
	}
	in = bufio.NewReaderSize(transform.NewReader(in, utf.BOMOverride(encoding.Nop.NewDecoder())), maxLine)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		if long {
			line = slices.Clone(line[:keptText+1]) // enough to show it is cut
			err = skipLine(in)
		}
		if large, ok := errors.AsType[tooLarge](err); ok {
			return nil, p.report, large
		}
		if err != nil && err != io.EOF {
			return nil, p.report, fmt.Errorf("cannot be read: %w", err)
		}
		if perr := p.take(n, bytes.TrimSpace(line), long); perr != nil {
			return nil, p.report, perr
		}
		if err == io.EOF {
			if err := rest(); err != nil {
				return nil, p.report, err
			}
			p.settle()
			return newSet(p.text, p.nets, p.entries, p.paths), p.report, nil
		}
	}
}

// skipLine reads on to the end of a line.
func skipLine(in *bufio.Reader) error {
	for {
		if _, err := in.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// bounded fails where there is more than left bytes to read.
type bounded struct {
	io.Reader
	left, max int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, tooLarge(b.max)
	}
	return n, err
}

// tooLarge is how many bytes there may be.
type tooLarge int64

func (max tooLarge) Error() string { return fmt.Sprintf("is larger than %d MiB", max>>20) }

type parser struct {
	text     chunks
	nets     *bart.Lite // nil: there are none
	entries  int
	paths    int // entries with one
	max      int
	report   Report
	redirect string // a zone of unbound, whose data come next; "" is none
	zone     zone
}

// take takes line n. The error is about the list as a whole.
func (p *parser) take(n int, line []byte, long bool) error {
	if len(line) == 0 && !long {
		return nil
	}
	p.report.Lines++
	if p.report.Lines == 1 && len(line) > 0 && line[0] == '<' {
		return ErrHTML
	}
	err := errLong
	if !long {
		err = p.line(line)
	}
	switch {
	case p.entries > p.max:
		return fmt.Errorf("has more than %d entries", p.max)
	case err == errSkip:
		p.report.Skipped++
		if len(p.report.FirstSkipped) < keptSkipped {
			p.report.FirstSkipped = append(p.report.FirstSkipped, BadLine{n, shown(line), err.Error()})
		}
	case err != nil:
		p.report.Bad++
		if len(p.report.First) < keptBad {
			p.report.First = append(p.report.First, BadLine{n, shown(line), err.Error()})
		}
	}
	return nil
}

// shown makes of a line what can be shown anywhere.
func shown(line []byte) string {
	s := string(line[:min(len(line), keptText)])
	if len(line) > keptText {
		s = strings.ToValidUTF8(s, "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

var (
	errSkip = errors.New("is not a rule about whole hosts")
	errLong = fmt.Errorf("is longer than %d KiB", maxLine>>10)
)

// cosmetic are what stands between hosts and the parts of pages that a rule
// hides or changes.
var cosmetic = []string{"##", "#@#", "#?#", "#@?#", "#$#", "#@$#", "#$?#", "#%#", "#@%#"}

// pattern are characters that no name has and that ad blockers' patterns have.
const pattern = "/*^$|&?=~,:"

// line takes a line that is not empty. The error is errSkip for rules that are
// none about hosts, or says what is wrong with the line.
func (p *parser) line(b []byte) error {
	line := string(b)
	switch {
	case p.zone.open:
		p.zone.open = !strings.Contains(line, ")")
		return nil
	case line[0] == '!' || line[0] == ';' || line[0] == '[' && line[len(line)-1] == ']' && !strings.Contains(line, ":"):
		return nil
	case line[0] == '$':
		p.zone.directive(line)
		return nil
	case strings.HasPrefix(line, "||") || strings.HasPrefix(line, "@@"):
		return p.rule(line)
	}
	if ok, err := p.dnsmasq(line); ok {
		return err
	}
	if ok, err := p.unbound(line); ok {
		return err
	}
	if hash := strings.IndexByte(line, '#'); hash >= 0 {
		own := hash == 0 || line[hash-1] == ' ' || line[hash-1] == '\t'
		for _, mark := range cosmetic {
			after, ok := strings.CutPrefix(line[hash:], mark)
			if ok && (!own || hash == 0 && after != "" && !strings.ContainsAny(after[:1], " \t#=-")) {
				return errSkip
			}
		}
		if !own && strings.Contains(line[:hash], "://") {
			return errSkip // part of a page
		}
		line = line[:hash]
	}
	line, _, _ = strings.Cut(line, " ;") // as zones and lists of address blocks have it
	if line = strings.TrimSpace(line); line == "" {
		return nil
	}
	fields := strings.Fields(line)
	if len(fields) == 1 {
		return p.name(line)
	}
	if _, err := netip.ParseAddr(fields[0]); err == nil || fields[0] == "0" {
		return p.hosts(fields[1:])
	}
	if ok, err := p.rpz(fields); ok {
		return err
	}
	if strings.ContainsAny(line[:1], pattern) {
		return errSkip
	}
	return errors.New("has several words, and the first is no address")
}

// ownNames are what hosts files call the machine that they are on.
var ownNames = []string{
	"localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0",
	"localhost4", "localhost4.localdomain4", "localhost6", "localhost6.localdomain6",
	"ip6-localhost", "ip6-loopback", "ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts",
}

// hosts takes the names of a line of a hosts file.
func (p *parser) hosts(names []string) error {
	var bad error
	for _, s := range names {
		name, _, err := policy.ParseHost(s)
		switch {
		case err != nil:
			bad = err
		case !slices.Contains(ownNames, name):
			p.add(name, exact)
		}
	}
	return bad
}

// name takes the only word of a line.
func (p *parser) name(word string) error {
	s, wild := strings.CutPrefix(word, "*.")
	if !wild {
		s = strings.TrimPrefix(s, ".")
	}
	if strings.IndexByte(word, '/') >= 0 {
		if block, err := parseBlock(word); err == nil {
			p.addBlock(block)
			return nil
		} else if a, bits, _ := strings.Cut(word, "/"); strings.Trim(bits, "0123456789.") == "" && bits != "" {
			if _, aerr := netip.ParseAddr(a); aerr == nil {
				return err
			}
		}
		if word[0] != '/' && !strings.ContainsAny(word, "*^$|&=~,") {
			return p.url(word)
		}
	}
	name, addr, err := policy.ParseHost(s)
	switch {
	case err == nil && addr.IsValid():
		p.add(name, exact)
	case err != nil && strings.ContainsAny(s, pattern):
		return errSkip
	case err != nil:
		return err
	case wild || strings.Contains(name, "."):
		p.add(name, below)
	case strings.Trim(word, "-_.") != word: // as in an ad blocker's "-banner-"
		return errSkip
	default:
		return errors.New("is one word, no domain")
	}
	return nil
}

// parseBlock parses address/bits and, of IPv4, address/netmask.
func parseBlock(s string) (netip.Prefix, error) {
	address, mask, _ := strings.Cut(s, "/")
	m, err := netip.ParseAddr(mask)
	if err != nil || !m.Is4() {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			err = fmt.Errorf("invalid prefix length %q", mask)
		}
		return p, err
	}
	a, err := netip.ParseAddr(address)
	ones, bits := net.IPMask(m.AsSlice()).Size()
	if err != nil || !a.Is4() || bits == 0 {
		return netip.Prefix{}, fmt.Errorf("invalid netmask %q", mask)
	}
	return netip.PrefixFrom(a, ones), nil
}

// rule takes a rule of an ad blocker.
func (p *parser) rule(line string) error {
	if i := strings.Index(line, " #"); i >= 0 {
		line = strings.TrimSpace(line[:i])
	}
	rest, excepted := strings.CutPrefix(line, "@@")
	rest, anchored := strings.CutPrefix(rest, "||")
	rest, options, _ := strings.Cut(rest, "$")
	host, ends := strings.CutSuffix(strings.TrimSuffix(rest, "|"), "^")
	if !anchored || !ends || strings.ContainsAny(host, pattern) || strings.HasSuffix(host, ".") {
		return errSkip
	}
	important := false
	for option := range strings.SplitSeq(options, ",") {
		switch strings.ToLower(option) {
		case "":
		case "important":
			important = true
		case "all", "doc", "document":
			if excepted { // not the host: what its pages ask for elsewhere
				return errSkip
			}
		default:
			return errSkip
		}
	}
	name, addr, err := policy.ParseHost(host)
	if err != nil {
		return err
	}
	says := below
	switch {
	case excepted && important:
		says = exceptImportant
	case excepted:
		says = except
	case important:
		says = below | belowImportant
	case addr.IsValid():
		says = exact
	}
	p.add(name, says)
	return nil
}

func (p *parser) add(name string, says byte) {
	if p.entries <= p.max {
		p.text.add(name, says)
		p.entries++
	}
}

// addBlock adds an address block. Bits behind its prefix do not matter.
func (p *parser) addBlock(block netip.Prefix) {
	if p.entries <= p.max {
		if p.nets == nil {
			p.nets = &bart.Lite{}
		}
		if a := block.Addr(); a.Is4In6() && block.Bits() >= 96 {
			block = netip.PrefixFrom(a.Unmap(), block.Bits()-96)
		}
		p.nets.Insert(block.Masked())
		p.entries++
	}
}
