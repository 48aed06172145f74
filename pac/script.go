package pac

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"espalier/policy"
)

// A Script is one form of the PAC script, ready to be served. Its fields must
// not be modified. The same configuration makes the same bytes.
type Script struct {
	Body []byte // ASCII, ES3
	Gzip []byte // Body, compressed
	// ETag is a weak entity tag, quotes and all, that both forms share.
	ETag string
}

// MaxSize is the size in bytes that a script's Body should stay below: iPadOS's
// daemons have hung on large ones. A long pac.internal can pass it.
const MaxSize = 8 << 10

const scriptHead = `// Made by Espalier from its catalogue and its configuration; change those, not this.
//
// espTable says which route the ports of a host take: [port, route, ...], port 0
// for any. "=x" stands for x itself, ".x" for the names below x, "-" for names
// without a dot, "#4" and "#6" for the IPv4 and IPv6 addresses with the hexadecimal
// digits behind, "*" for everything. The most specific key that has the port decides,
// route 0 where none has.

`

//go:embed script.js
var scriptSource string

// scriptTail is scriptSource without its comments, which devices need not fetch.
var scriptTail = regexp.MustCompile(`(?m)^ *// .*\n| +// .*$`).ReplaceAllString(scriptSource, "")

// writeTable returns the script behind its routes.
func (s *site) writeTable(pol *policy.Policy) []byte {
	groups := s.groups(pol)
	var b bytes.Buffer
	b.WriteString("var espTable = {};\n")
	for _, family := range []string{"4", "6"} {
		var lengths []int
		for _, g := range groups {
			for _, key := range g.keys {
				if strings.HasPrefix(key, "#"+family) {
					lengths = append(lengths, len(key))
				}
			}
		}
		slices.Sort(lengths)
		lengths = slices.Compact(lengths)
		slices.Reverse(lengths)
		fmt.Fprintf(&b, "var espLengths%s = [%s];\n", family, joinInts(lengths))
	}
	for _, g := range groups {
		var rule []int
		for _, pr := range g.rule {
			rule = append(rule, int(pr.port), pr.route)
		}
		fmt.Fprintf(&b, "espAdd([%s], %s);\n", joinInts(rule), quoteWords(g.keys))
	}
	b.WriteString(scriptTail)
	return b.Bytes()
}

// script returns the script that names proxies, which must be normal.
func (s *site) script(proxies []string) *Script {
	var b bytes.Buffer
	b.WriteString(scriptHead)
	b.WriteString("var espRoutes = [")
	for i, hops := range s.hops {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n  " + quote(answer(hops, proxies)))
	}
	b.WriteString("\n];\n")
	b.Write(s.table)
	sum := sha256.Sum256(b.Bytes())
	return &Script{
		Body: b.Bytes(),
		Gzip: compress(b.Bytes()),
		ETag: `W/"` + hex.EncodeToString(sum[:8]) + `"`,
	}
}

// quote makes a JavaScript string of s. Everything that gets here is made of
// names, numbers and "*.:;", and a byte that could end the string is escaped all
// the same.
func quote(s string) string { return strconv.QuoteToASCII(s) }

// quoteWords makes a JavaScript expression of words with spaces between, broken
// into lines.
func quoteWords(words []string) string {
	const width = 96
	var lines []string
	var line strings.Builder
	for i, w := range words {
		if line.Len()+len(w) > width {
			lines = append(lines, quote(line.String()))
			line.Reset()
		}
		line.WriteString(w)
		if i < len(words)-1 {
			line.WriteByte(' ')
		}
	}
	return strings.Join(append(lines, quote(line.String())), " +\n  ")
}

func joinInts(list []int) string {
	var b strings.Builder
	for i, n := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(n))
	}
	return b.String()
}

// gzipWriters are kept, since a new one takes most of a megabyte.
var gzipWriters = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestCompression) // the level is valid
	return w
}}

func compress(p []byte) []byte {
	w := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(w)
	var b bytes.Buffer
	w.Reset(&b)
	w.Write(p) // to a Buffer, which never fails
	w.Close()
	return b.Bytes()
}
