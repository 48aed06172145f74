package catalog

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// This file reads the cells of the article's tables.

// isBlank reports whether a cell says that it is empty.
func isBlank(s string) bool {
	return strings.Trim(s, "-–—―−－ー ") == ""
}

// isNumbers reports whether s has the shape of a list of numbers; they may
// still not be ports.
var isNumbers = regexp.MustCompile(`^\d+(?:(?:\s*[,;/&、，；・]\s*|\s+)(?:\pL{1,4}\s+)?\d+|\s*[和及与與と]\s*\d+)*$`).MatchString

var number = regexp.MustCompile(`\d+`)

func readPorts(s string) (ports []uint16, err error) {
	if !isNumbers(s) {
		return nil, fmt.Errorf("%q is not a list of ports (want numbers such as \"443, 80\")", s)
	}
	for _, w := range number.FindAllString(s, -1) {
		port, err := checkPort(w)
		if err == nil {
			ports, err = addUnique(ports, port)
		}
		if err != nil {
			return nil, err
		}
	}
	return ports, nil
}

// listItems cuts a list such as "a, b, and c", "a/b" or "a、b".
func listItems(s string) []string {
	words := strings.FieldsFunc(s, isSeparator)
	for i := len(words) - 2; i > 0; i-- {
		if andWords[strings.ToLower(words[i])] {
			words = slices.Delete(words, i, i+1)
		}
	}
	return words
}

// isSeparator reports whether r separates the items of a list.
func isSeparator(r rune) bool {
	return strings.ContainsRune(",;/&+、，；・،", r) || unicode.IsSpace(r)
}

// readTransports reads a protocol cell. SSH is TCP. Between two protocols may be
// one word, which is "and" in some language.
func readTransports(s string) (list []string, err error) {
	words := listItems(s)
	for i, w := range words {
		t := strings.ToLower(w)
		if t == "ssh" {
			t = "tcp"
		}
		if !slices.Contains(transports, t) {
			if i == 1 && len(words) == 3 && len(w) <= 12 && isTransports(words[2]) {
				continue
			}
			return nil, fmt.Errorf("%q is not a protocol (known: TCP, UDP, SSH)", s)
		}
		if list, err = addUnique(list, t); err != nil {
			return nil, fmt.Errorf("protocol %w", err)
		}
	}
	if list == nil {
		return nil, fmt.Errorf("%q is not a protocol (known: TCP, UDP, SSH)", s)
	}
	return list, nil
}

func isTransports(s string) bool {
	_, err := readTransports(s)
	return err == nil
}

var osName = regexp.MustCompile(`^\pL*OS$`)

// systemWords returns the names of systems in a cell such as "iOS, iPadOS and
// tvOS", and the words beside them that are neither "and" nor "only" in a
// language that is known. Where scripts change a word ends: "macOSのみ".
//
// odd reports whether a word is another item of the list, so that it cannot be
// "and" or "only" in any language: "iOS, Linux".
func systemWords(s string) (names, others []string, odd bool) {
	var word []rune
	listed := false // a separator or "and" precedes the word
	wasOther := false
	end := func() {
		w := string(word)
		lower := strings.ToLower(w)
		switch {
		case w == "":
			return
		case andWords[lower]:
			listed = true
			odd = odd || wasOther && len(names) > 0
		case onlyWords[lower]:
		case osName.MatchString(w) || slices.Contains(systemIDs, lower):
			names = append(names, w)
			listed, wasOther = false, false
		default:
			others = append(others, w)
			wasOther = true
		}
		word = word[:0]
	}
	latin := false
	for _, r := range s {
		if isSeparator(r) {
			end()
			if !unicode.IsSpace(r) {
				odd = odd || wasOther && len(names) > 0
				listed = true
			}
			continue
		}
		if is := r < unicode.MaxASCII || unicode.Is(unicode.Latin, r); is != latin {
			end()
			latin = is
		}
		word = append(word, r)
	}
	end()
	return names, others, odd || wasOther && listed
}

// isSystems reports whether s has the shape of a list of operating systems;
// they may still not be known. "macOS updates" has not.
func isSystems(s string) bool {
	names, others, _ := systemWords(s)
	return len(names) > 0 && len(others) == 0
}

// looksLikeSystems is isSystems for a language that is not known, where one
// short word may be "and" or "only".
func looksLikeSystems(s string) bool {
	names, others, odd := systemWords(s)
	return len(names) > 0 && !odd && (len(others) == 0 || len(others) == 1 && len([]rune(others[0])) <= 12 && !strings.ContainsAny(others[0], "-.:()\""))
}

// readSystems reads the cell of a column that is known to have systems.
func readSystems(s string) (list []string, err error) {
	names, others, _ := systemWords(s)
	if len(others) > 0 && !looksLikeSystems(s) {
		names = append(names, others...)
	}
	for _, w := range names {
		id := strings.ToLower(w)
		if !slices.Contains(systemIDs, id) {
			return nil, fmt.Errorf("%q is not an operating system (known: iOS, iPadOS, tvOS, macOS, watchOS, visionOS)", w)
		}
		if list, err = addUnique(list, id); err != nil {
			return nil, fmt.Errorf("operating system %w", err)
		}
	}
	if list == nil {
		return nil, fmt.Errorf("%q is not a list of operating systems (known: iOS, iPadOS, tvOS, macOS, watchOS, visionOS)", s)
	}
	return list, nil
}

// apnsNote matches the pointer to the note on push notifications in the last
// column.
var apnsNote = regexp.MustCompile(`(?i)(?:\bAPNs?\b|\bPN-tj).*(?:prox|proks|välityspalvel)|APN.*(?:プロキシ|代理|プロキシ|프록시|прокс|Proxy)|(?:代理|プロキシ).*APN`)

// readProxy reads a cell of the last column; ok is false where it is not one in
// a language that is known.
func readProxy(s string) (p Proxy, ok bool) {
	switch lower := strings.ToLower(strings.Trim(s, " .")); {
	case yesWords[lower]:
		return ProxyYes, true
	case isBlank(s) || noWords[lower]:
		return ProxyUnmarked, true
	case apnsNote.MatchString(s):
		return ProxySeeAPNs, true
	}
	return "", false
}

// isMark reports whether s is a cell of the last column that is not empty.
func isMark(s string) bool {
	_, ok := readProxy(s)
	return ok && !isBlank(s)
}

// foldHost makes a host name of a cell: lower case, without the marks of
// Markdown, footnotes and a scheme.
func foldHost(s string) string {
	s = strings.ToLower(strings.Trim(s, "`¹²³⁴⁵"))
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	return strings.TrimSuffix(s, "/")
}
