package auth

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFile bounds files of users and groups: some 100,000 users.
const maxFile = 16 << 20

// htpasswd is a file of users. It is immutable.
type htpasswd struct {
	users  map[string]account
	folded map[string]string // one of the names with that folded form
	decoy  hash              // compared against where the user is unknown; nil: there is nobody
}

type account struct {
	text string // what stands behind the name in the file
	role string // empty: lines have none
	hash
}

// openHTPasswd reads a file of users. Where there are roles a line may end in one
// of them; the first is that of lines without. Errors begin with the file and
// line, joined.
func openHTPasswd(file string, roles ...string) (*htpasswd, error) {
	u := &htpasswd{users: map[string]account{}, folded: map[string]string{}}
	err := eachLine(file, func(line string) error {
		name, text, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return errors.New(`is no "name:hash" line`)
		}
		if _, twice := u.users[name]; twice {
			return fmt.Errorf("user %q stands twice", name)
		}
		a := account{text: text}
		if len(roles) > 0 {
			a.role = roles[0]
			if rest, role, ok := strings.Cut(text, ":"); ok {
				if text, a.role = rest, role; !slices.Contains(roles, role) {
					return fmt.Errorf("user %q has the role %q (allowed: %s)", name, role, strings.Join(roles, ", "))
				}
			}
		}
		h, err := parseHash(text)
		if err != nil {
			return fmt.Errorf("user %q has %w", name, err)
		}
		a.hash = h
		u.users[name] = a
		u.folded[foldName(name)] = name
		if u.decoy == nil || h.work() > u.decoy.work() {
			u.decoy = h
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return u, nil
}

// has reports whether name is a user.
func (u *htpasswd) has(name string) bool {
	if u == nil {
		return false
	}
	_, ok := u.users[name]
	return ok
}

// hasFolded reports whether name is a user, in any case and with any spaces.
func (u *htpasswd) hasFolded(name string) bool {
	if u == nil {
		return false
	}
	_, ok := u.folded[foldName(name)]
	return ok
}

// verify pays for a hash, also where there is no such user: where all hashes
// cost the same, the time tells nothing.
func (u *htpasswd) verify(name, password string) bool {
	if a, ok := u.users[name]; ok {
		return a.matches(password)
	}
	if u.decoy != nil {
		u.decoy.matches(password)
	}
	return false
}

// groups are the groups of each user.
type groups map[string][]string

// openGroups reads a file of "group: user user" lines, as Apache has them. Errors
// begin with the file and line, joined.
func openGroups(file string) (groups, error) {
	g := groups{}
	seen := map[string]bool{}
	err := eachLine(file, func(line string) error {
		name, members, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		switch {
		case !ok || name == "":
			return errors.New(`is no "group: user user" line`)
		case !printable(name):
			return fmt.Errorf("group %q has characters that cannot be printed", name)
		case seen[name]:
			return fmt.Errorf("group %q stands twice", name)
		}
		seen[name] = true
		in := map[string]bool{}
		for user := range strings.FieldsSeq(members) {
			if !in[user] {
				in[user] = true
				g[user] = append(g[user], name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// fold returns the groups by folded names of users.
func (g groups) fold() groups {
	folded := groups{}
	for user, names := range g {
		key := foldName(user)
		for _, name := range names {
			if !slices.Contains(folded[key], name) {
				folded[key] = append(folded[key], name)
			}
		}
	}
	return folded
}

// eachLine calls read for every line that is neither empty nor a comment.
func eachLine(file string, read func(line string) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var errs []error
	rest := &io.LimitedReader{R: f, N: maxFile + 1}
	lines := bufio.NewScanner(rest)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\uFEFF")
		}
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := read(line); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", file, n, err))
		}
		if len(errs) == 100 {
			errs = append(errs, fmt.Errorf("%s: and maybe more", file))
			break
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("read %s: %w", file, err))
	}
	if rest.N == 0 {
		errs = append(errs, fmt.Errorf("%s is larger than %d MiB", file, maxFile>>20))
	}
	return errors.Join(errs...)
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) })
}
