package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// systemIDs are the operating systems that a row can name.
var systemIDs = []string{"ios", "ipados", "tvos", "macos", "watchos", "visionos"}

var (
	transports = []string{"tcp", "udp"}
	proxies    = []string{string(ProxyYes), string(ProxyUnmarked), string(ProxySeeAPNs)}
	cells      = []string{"ports", "transports", "systems", "proxy"} // that can be unknown
)

// checkHost accepts what a row of a file can have as its host: a lower-case
// ASCII name of two labels or more, or such a name behind "*.".
func checkHost(s string) error {
	if !isHost(s) {
		return fmt.Errorf("%q is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)", s)
	}
	return nil
}

func isHost(s string) bool {
	s = strings.TrimPrefix(s, "*.")
	labels := strings.Split(s, ".")
	if len(s) > 253 || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range []byte(l) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	// A name whose last label is a number is an address or a mistake.
	_, err := strconv.Atoi(labels[len(labels)-1])
	return err != nil
}

// checkPort turns digits into a port.
func checkPort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port (allowed: 1 to 65535)", s)
	}
	return uint16(n), nil
}

// checkWord accepts one of allowed.
func checkWord(s string, allowed []string) error {
	if !slices.Contains(allowed, s) {
		return fmt.Errorf("%q is unknown (allowed: %s)", s, strings.Join(allowed, ", "))
	}
	return nil
}

// checkService accepts a service that a row can count for.
func checkService(s string) error {
	if s == Other || !IsService(s) {
		var ids []string
		for _, v := range Services {
			if v.ID != Other {
				ids = append(ids, v.ID)
			}
		}
		return checkWord(s, ids)
	}
	return nil
}

// checkText accepts a line of text. Control characters would end up on
// terminals and in exported configurations.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8 text")
	}
	if strings.ContainsFunc(s, isControl) {
		return errors.New("a line break or control character is not allowed here")
	}
	return nil
}

func isControl(r rune) bool {
	return r < ' ' || r == '\u2028' || r == '\u2029' || 0x7f <= r && r <= 0x9f
}

// addUnique appends v to list unless it is there.
func addUnique[T comparable](list []T, v T) ([]T, error) {
	if slices.Contains(list, v) {
		return list, fmt.Errorf("%v stands twice", v)
	}
	return append(list, v), nil
}
