package configs

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"espalier/policy/auth"
)

// Default is the embedded default configuration: every key with its default and
// what it means.
//
//go:embed default.yaml
var Default string

// Options say what Load reads.
type Options struct {
	// File is the configuration file; empty means the defaults alone.
	File string
	// Environ are variables as os.Environ returns them. A variable that begins
	// with ESPALIER_ sets the key of that name, in capitals and with _ for each
	// dot.
	Environ []string
	// Set are "key=value" texts of --set flags; the last of a key counts.
	Set []string
}

// Loaded is a valid configuration and where it comes from. It must not be
// modified; then it is safe for concurrent use.
type Loaded struct {
	// Config is the configuration in force. Its file names are absolute, but
	// for "-" and empty ones.
	Config *Config
	// Warnings are keys that are valid, and hardly what is wanted, and secrets that
	// others can read.
	Warnings Problems
	// Files are the configuration file and the files that it names, to be given
	// to Watcher.Follow.
	Files []string
	// Hash is the SHA-256 of the configuration file in hexadecimal, of Default
	// where there is none. The environment and flags play no part in it.
	Hash string

	root  *node
	users *auth.Auth // while loading, once its files were read
}

// Load reads the configuration: the embedded default, over it the file, over it
// the environment, over it flags. A section is merged by key, so that a map such
// as egress.hosts grows; a list replaces the one below it.
//
// A file name that stands in the configuration file is relative to that file's
// directory; one from the environment, a flag or the defaults to the working
// directory. Logs, the store and ACME's storage are relative to data wherever
// they are written. In Loaded.Config all are absolute.
//
// Where anything is wrong the error is Problems, with all of it.
func Load(o Options) (*Loaded, error) {
	var text []byte
	if o.File != "" {
		var err error
		if text, err = readFile(o.File); err != nil {
			_, _, problems := layers(o, nil)
			problems = append(problems, Problem{File: o.File, Message: err.Error()})
			problems.sort()
			return nil, problems
		}
	}
	return load(o, text)
}

// readFile reads a configuration file of bearable size.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, plainError(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, plainError(err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("is larger than %d MiB", maxFile>>20)
	}
	return text, nil
}

// plainError says why a file could not be read, without its name.
func plainError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("does not exist")
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("cannot be read: %w", e.Err)
	}
	return fmt.Errorf("cannot be read: %w", err)
}

// layers reads every layer; ok tells whether the file could be made sense of.
func layers(o Options, text []byte) (all []*node, ok bool, problems Problems) {
	base, problems := readDocument(&source{layerDefault, "default configuration"}, []byte(Default))
	if base == nil {
		return nil, false, problems
	}
	all, ok = []*node{base}, true
	if o.File != "" {
		file, bad := readDocument(&source{layerFile, o.File}, text)
		problems = append(problems, bad...)
		if file != nil {
			all = append(all, file)
		} else {
			ok = false
		}
	}
	env, bad := readEnvironment(o.Environ)
	all, problems = append(all, env...), append(problems, bad...)
	flags, bad := readFlags(o.Set)
	all, problems = append(all, flags...), append(problems, bad...)
	return all, ok, problems
}

// load is Load with the file's text.
func load(o Options, text []byte) (*Loaded, error) {
	all, ok, problems := layers(o, text)
	if !ok {
		problems.sort()
		return nil, problems
	}
	l := &Loaded{Config: &Config{}}
	k := koanf.New("\x00") // which no name can hold; names may hold dots
	for _, layer := range all {
		if err := k.Load(confmap.Provider(layer.plain().(map[string]any), ""), nil); err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		l.root = overlay(l.root, layer)
	}
	err := k.UnmarshalWithConf("", l.Config, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{ErrorUnused: true, TagName: "koanf"}})
	if err != nil { // the walk lets nothing through that does not fit
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if err := l.resolvePaths(o.File); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	problems = append(problems, l.check(problems)...)
	if len(problems) > 0 {
		problems.sort()
		return nil, problems
	}
	l.Warnings = l.warnings(o.File)
	l.users = nil
	l.Files = l.files(o.File)
	if o.File == "" {
		text = []byte(Default)
	}
	sum := sha256.Sum256(text)
	l.Hash = hex.EncodeToString(sum[:])
	return l, nil
}

// check validates the values and the files that they name. What lies below a
// key that known has of the same source is left out: its value is not what was
// written.
func (l *Loaded) check(known Problems) Problems {
	var problems Problems
	add := func(errs []error, known Problems) {
		for _, err := range errs {
			if p := problem(l.root, err.Error()); !covered(p, known) {
				problems = append(problems, p)
			}
		}
	}
	add(split(l.Config.validate(l.isSet)), known)
	add(l.checkFiles(), append(slices.Clone(known), problems...))
	return problems
}

func covered(p Problem, known Problems) bool {
	for _, k := range known {
		tail, ok := strings.CutPrefix(p.Key, k.Key)
		if ok && k.Key != "" && k.File == p.File && (tail == "" || tail[0] == '.' || tail[0] == '[') {
			return true
		}
	}
	return false
}

// lookup returns the node of key, nil where there is none.
func (l *Loaded) lookup(key string) *node {
	path, rest := resolve(l.root, key)
	if rest != "" {
		return nil
	}
	return path[len(path)-1]
}

func (l *Loaded) isSet(key string) bool {
	n := l.lookup(key)
	return n != nil && n.src.layer != layerDefault
}

// Problem returns the problem that text tells, with its place: "key: message",
// where key is the path of one, such as "rules[2].when.hosts[0]".
func (l *Loaded) Problem(text string) Problem { return problem(l.root, text) }

// Origin says where the value of key, such as "proxy.listen", comes from:
// "default", "FILE:LINE", "environment NAME" or "flag --set KEY". It is empty
// for a key that has no value.
func (l *Loaded) Origin(key string) string {
	n := l.lookup(key)
	if n == nil || key == "" {
		return ""
	}
	return n.origin()
}

func (n *node) origin() string {
	switch n.src.layer {
	case layerDefault:
		return "default"
	case layerFile:
		return fmt.Sprintf("%s:%d", n.src.name, n.line)
	}
	return n.src.file()
}

// leaves calls visit for every value below v in order: all that is no section
// with fixed keys, no section of such and no list of such.
func leaves(v reflect.Value, key string, visit func(key string, v reflect.Value)) {
	t := v.Type()
	switch {
	case kindOf(t) == reflect.Struct:
		for i := range t.NumField() {
			if name := fieldName(t.Field(i)); name != "" {
				leaves(v.Field(i), join(key, name), visit)
			}
		}
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct:
		for _, name := range sortedKeys(v) {
			leaves(v.MapIndex(reflect.ValueOf(name)), join(key, name), visit)
		}
	case t.Kind() == reflect.Slice && kindOf(t.Elem()) == reflect.Struct:
		for i := range v.Len() {
			leaves(v.Index(i), fmt.Sprintf("%s[%d]", key, i), visit)
		}
	default:
		visit(key, v)
	}
}
