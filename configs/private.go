package configs

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// secretFiles are the files that nobody but this process and administrators should
// read. One may be named that does not exist.
func (l *Loaded) secretFiles(file string) []fileKey {
	c := l.Config
	users := c.UsersFile()
	keys := []fileKey{
		{"auth.htpasswd", &c.Auth.HTPasswd},
		{"auth.ldap.password_file", &c.Auth.LDAP.PasswordFile},
		{"tls.files.key", &c.TLS.Files.Key},
		{"web.users", &users},
		{"web.profile.key", &c.Web.Profile.Key},
	}
	if key := l.secretInFile(); key != "" {
		keys = append(keys, fileKey{key, &file})
	}
	return slices.DeleteFunc(keys, func(f fileKey) bool { return *f.name == "" })
}

// secretInFile returns the first key, in the order of the Config, that the
// configuration file has and whose value is a secret; empty where there is none.
func (l *Loaded) secretInFile() string {
	var first string
	leaves(reflect.ValueOf(l.Config).Elem(), "", func(key string, v reflect.Value) {
		n := l.lookup(key)
		if first == "" && n != nil && n.src.layer == layerFile && strings.Contains(flow(v, key), hidden) {
			first = key
		}
	})
	return first
}

// An identity is whom the system takes a process for.
type identity struct {
	uid    int
	groups []int
}

func self() identity {
	groups, _ := os.Getgroups() // without them its own is left
	return identity{os.Geteuid(), append(groups, os.Getegid())}
}

// exposed says who else can use the file name, to be put behind its key; nil where
// nobody can, or the file cannot be looked at.
//
// A group may: an administrator who gives a file of root's to one (0640, as in
// /etc/ssl/private) means it, and so is one fine that the process is of. What group
// a service has that root checks the configuration for, root cannot know.
func (me identity) exposed(name string) error {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	mode, who := info.Mode().Perm(), ""
	bits := mode & 0o006
	if bits != 0 && reached(path, -1) {
		who = "every user of this machine"
	} else if bits = mode >> 3 & 0o006; bits != 0 && me.uid != 0 && owner.Uid != 0 &&
		!slices.Contains(me.groups, int(owner.Gid)) && reached(path, int(owner.Gid)) {
		who = "the group " + groupName(owner.Gid)
	}
	if who == "" {
		return nil
	}
	can := map[fs.FileMode]string{0o004: "read", 0o002: "change", 0o006: "read and change"}[bits]
	return fmt.Errorf("%s can %s %s (mode %04o): `chmod 600` it, or 640 with root as its owner and the group that espalier runs with", who, can, name, mode)
}

// reached reports whether the directories above name let everybody through, or the
// group gid, if it is none below 0.
func reached(name string, gid int) bool {
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return true // by others, for all that is known
		}
		need := fs.FileMode(0o001)
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Gid) == gid {
			need = 0o010
		}
		if info.Mode()&need == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}
