package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	utf16 "golang.org/x/text/encoding/unicode"
	"golang.org/x/text/unicode/norm"
)

// maxArticle is far above the size of Apple's article, as HTML too.
const maxArticle = 16 << 20

// An Article is an edition of Apple's article for network administrators.
type Article struct {
	// Edition is its month, such as "2024-07"; empty where the article names none.
	Edition string
	// Rows are its rows in their order. Their services are the catalogue's.
	Rows []Row
	// New and Unknown say what Import decided.
	New     []NewRow
	Unknown []UnknownHeading
}

// Options of Import.
type Options struct {
	// Known is the catalogue that the article is read for: a host keeps its service
	// in it. Nil means none.
	Known []Row
	// Sections gives new hosts below a heading of the article a service.
	Sections map[string]string
}

// Import reads Apple's article for network administrators, as HTML, as Markdown,
// or as text with one cell a line, with tabs or with spaces between the cells of a
// row. What a column holds says which it is, so any language will do; in those of
// words.go the headings and marks are known, too.
//
// Known hosts keep the service that they have in the catalogue, and row by row
// where a host has several. The service of a new host is, by the first of these
// that tells one: Options.Sections, its heading, a heading with a similar name, the
// known hosts of its table, a known host with a similar name; apple-other where
// none does.
//
// Purposes are the article's own descriptions. Where a table has no column for
// ports or protocols, 443 and TCP are assumed and marked as unknown.
//
// An error names the line, in HTML the table and row too. Nothing is skipped: what
// is not understood is an error.
func Import(r io.Reader, o Options) (*Article, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxArticle+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxArticle {
		return nil, fmt.Errorf("the article is larger than %d MB", maxArticle>>20)
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) { // UTF-16, as Windows saves it
		if data, err = utf16.UTF16(utf16.LittleEndian, utf16.UseBOM).NewDecoder().Bytes(data); err != nil {
			return nil, err
		}
	}
	if i := invalidUTF8(data); i >= 0 {
		return nil, fmt.Errorf("line %d: not UTF-8 text", 1+bytes.Count(data[:i], []byte("\n")))
	}
	data = norm.NFC.Bytes(bytes.TrimPrefix(data, []byte("\ufeff")))
	text := string(data)
	var list []found
	if isHTML(data) {
		list, text, err = importHTML(data, o.Known)
	} else {
		list, err = importText(text, o.Known)
	}
	if err != nil {
		return nil, err
	}
	if list == nil {
		return nil, errNoTable
	}
	if err := readMarks(list, o.Known); err != nil {
		return nil, err
	}
	a := &Article{Edition: edition(clean(text))}
	return a, a.assign(list, o)
}

var errNoTable = errors.New(`no table found (want rows of a host, its ports such as "443, 80" and its protocol such as TCP)`)

// isHTML tells HTML from text that mentions it.
func isHTML(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(data), []byte("<")) ||
		bytes.Contains(bytes.ToLower(data), []byte("<table"))
}

// invalidUTF8 returns where data stops being UTF-8, or -1.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// clean folds white space, no-break spaces included, and full-width letters and
// digits, and drops what does not show.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\u200b' || r == '\u2060' || r == '\ufeff' || r == '\u00ad' || unicode.Is(unicode.Bidi_Control, r):
			return -1
		case isControl(r):
			return ' '
		case '０' <= r && r <= '９' || 'Ａ' <= r && r <= 'Ｚ' || 'ａ' <= r && r <= 'ｚ' || r == '．' || r == '＊':
			return r - '！' + '!'
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// Read returns the rows in data: a catalogue in YAML, or else an edition of Apple's article,
// see Import. name is that of its file; known is as in Options.
func Read(name string, data []byte, known []Row) ([]Row, error) {
	if ext := filepath.Ext(name); ext == ".yaml" || ext == ".yml" || looksLikeCatalogue(data) {
		return ParseFile(name, data)
	}
	article, err := Import(bytes.NewReader(data), Options{Known: known})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return article.Rows, nil
}

// looksLikeCatalogue reports whether the first line that is no comment begins a
// list of mappings.
func looksLikeCatalogue(data []byte) bool {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' {
			return bytes.HasPrefix(line, []byte("- ")) && bytes.Contains(line, []byte(": "))
		}
	}
	return false
}
