package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxArticle is far above the size of Apple's article, as HTML too.
const maxArticle = 16 << 20

// Import reads Apple's article for network administrators, in Swedish or
// English, as plain text (one cell a line, as a browser or a converter writes
// it) or as HTML, and returns its rows in their order. It knows the words of
// the article, not its hosts.
//
// Purposes are the article's own descriptions. Where a table has no column for
// ports or protocols, 443 and TCP are assumed and marked as unknown. Source
// names the edition where the article tells it.
//
// An error names the line, in HTML the table and row. Nothing is skipped: what
// is not understood is an error.
func Import(r io.Reader) ([]Row, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxArticle+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxArticle {
		return nil, fmt.Errorf("the article is larger than %d MB", maxArticle>>20)
	}
	if i := invalidUTF8(data); i >= 0 {
		return nil, fmt.Errorf("line %d: not UTF-8 text", 1+bytes.Count(data[:i], []byte("\n")))
	}
	data = norm.NFC.Bytes(bytes.TrimPrefix(data, []byte("\ufeff")))
	var rows []Row
	if isHTML(data) {
		rows, err = importHTML(data)
	} else {
		rows, err = importText(string(data))
	}
	if err != nil {
		return nil, err
	}
	return rows, nil
}

var errNoTable = errors.New(`no table found (want tables headed "Hosts", "Ports", "Protocol" …, in Swedish "Servrar", "Portar", "Protokoll" …)`)

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

// clean folds white space, no-break spaces included, and drops what does not
// show.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\u200b' || r == '\u2060' || r == '\ufeff' || r == '\u00ad':
			return -1
		case isControl(r):
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// finish fills in what the cells of a row do not say.
func finish(r *Row, cols []column, sec section, source string) {
	r.Section, r.Service, r.Source = sec.name, sec.serviceOf(r.Host), source
	if r.Proxy == "" {
		r.Proxy = ProxyUnmarked
	}
	if !slices.Contains(cols, colPorts) {
		r.Ports, r.Unknown = []uint16{443}, append(r.Unknown, "ports")
	}
	if !slices.Contains(cols, colTransports) {
		r.Transports, r.Unknown = []string{"tcp"}, append(r.Unknown, "transports")
	}
	if !slices.Contains(cols, colProxy) {
		r.Unknown = append(r.Unknown, "proxy")
	}
}

// months are the article's, English and Swedish, by their first three letters.
var months = []string{"jan", "feb", "mar", "apr", "may maj", "jun", "jul", "aug", "sep", "oct okt", "nov", "dec"}

var editions = []*regexp.Regexp{
	regexp.MustCompile(`(?i)\b(?:published date|publiceringsdatum):? (?:\d{1,2} )?(\pL{3})\pL*,? (?:\d{1,2}, )?(20\d\d)\b`),
	regexp.MustCompile(`(?i)\b(?:recent changes|nyligen genomförda förändringar):? (\pL{3})\pL* (20\d\d)\b`),
}

// edition says which edition of the article text is: by its date, or else by
// the newest month of its list of changes.
func edition(text string) string {
	for _, re := range editions {
		m := re.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		for i, names := range months {
			if strings.Contains(names, strings.ToLower(m[1])) {
				return fmt.Sprintf("article %s-%02d", m[2], i+1)
			}
		}
	}
	return "article"
}
