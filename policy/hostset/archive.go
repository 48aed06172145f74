package hostset

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// MaxZip bounds a zip archive, which is held in memory: its directory is at its end.
const MaxZip = 64 << 20

// tarBlock is the size of a header of tar.
const tarBlock = 512

// errBinary says that a source is neither text nor packed in a way that unpack knows.
var errBinary = errors.New("is not text, gzip, tar or zip (UTF-16 needs a byte order mark)")

// MatchMember reports whether the file name of an archive is meant by pattern: one of
// path.Match, for the whole name or for as many of its last elements as the pattern has.
func MatchMember(pattern, name string) bool {
	name = path.Clean("/" + name)[1:]
	if drop := strings.Count(name, "/") - strings.Count(pattern, "/"); drop > 0 {
		for range drop {
			_, name, _ = strings.Cut(name, "/")
		}
	}
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// unpack returns the text of the list that in has: as it is, packed with gzip, or as the file
// member of an archive (tar or zip). An archive of one file needs no member. rest, to be called
// when the text is read, says whether member means a second file.
func unpack(in *bufio.Reader, member string, maxBytes int64) (_ *bufio.Reader, rest func() error, _ error) {
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot be unpacked: %w", err)
		}
		in = bufio.NewReaderSize(&bounded{unpacked, 4 * maxBytes, 4 * maxBytes}, maxLine) // other files, too
	}
	head, _ := in.Peek(tarBlock)
	f := find{member: member}
	switch {
	case isTar(head):
		f.archive = &tarFiles{tar.NewReader(in)}
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		files, err := openZip(in)
		if err != nil {
			return nil, nil, err
		}
		f.archive = files
	case isBinary(head):
		return nil, nil, errBinary
	case member != "":
		return nil, nil, errors.New("is not an archive: leave member out")
	default:
		return limited(in, maxBytes), func() error { return nil }, nil
	}
	r, err := f.first()
	if err != nil {
		return nil, nil, err
	}
	return limited(r, maxBytes), f.rest, nil
}

// isTar reports whether a source that begins with head is an archive of tar, also one of a
// version before POSIX, which only the checksum of its header tells.
func isTar(head []byte) bool {
	if len(head) < tarBlock {
		return false
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return !errors.Is(err, tar.ErrHeader) && err != io.EOF
}

// isBinary reports whether head has a zero byte and is not in UTF-16.
func isBinary(head []byte) bool {
	return bytes.IndexByte(head, 0) >= 0 && !bytes.HasPrefix(head, []byte("\xff\xfe")) && !bytes.HasPrefix(head, []byte("\xfe\xff"))
}

func limited(r io.Reader, maxBytes int64) *bufio.Reader {
	return bufio.NewReaderSize(&bounded{r, maxBytes, maxBytes}, maxLine)
}

// An archive has files. next goes on to the next regular one and returns its name, and io.EOF
// behind the last; open reads it.
type archive interface {
	next() (string, error)
	open() (io.Reader, error)
}

// A find looks for the one file of an archive that member means; with member "" it is the only
// one.
type find struct {
	archive
	member string
	names  []string // of the files so far
	found  []string // that member means
}

// fewNames is how many names of files an error has.
const fewNames = 5

// look goes on to the next file that member means; false: there is none.
func (f *find) look() (bool, error) {
	for {
		name, err := f.next()
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("cannot be unpacked: %w", err)
		}
		f.names = append(f.names, name)
		if f.member == "" || MatchMember(f.member, name) {
			f.found = append(f.found, name)
			return true, nil
		}
	}
}

func (f *find) first() (io.Reader, error) {
	ok, err := f.look()
	switch {
	case err != nil:
		return nil, err
	case len(f.names) == 0:
		return nil, errors.New("is an archive without files")
	case !ok:
		return nil, fmt.Errorf("is an archive without a file %q (it has %s)", f.member, some(f.names))
	}
	r, err := f.open()
	if err != nil {
		return nil, fmt.Errorf("member %q cannot be unpacked: %w", f.found[0], err)
	}
	return r, nil
}

func (f *find) rest() error {
	for ok := true; ok && len(f.found) <= fewNames; {
		var err error
		if ok, err = f.look(); err != nil {
			return err
		}
	}
	switch {
	case len(f.found) == 1:
		return nil
	case f.member == "":
		return fmt.Errorf("is an archive of several files: name one by member (%s)", some(f.names))
	}
	return fmt.Errorf("is an archive in which member %q means several files: %s", f.member, some(f.found))
}

// some are the first names, as they can be shown.
func some(names []string) string {
	var b strings.Builder
	for i, name := range names[:min(len(names), fewNames)] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(shown([]byte(name)))
	}
	if len(names) > fewNames {
		b.WriteString(" …")
	}
	return b.String()
}

type tarFiles struct{ *tar.Reader }

func (t *tarFiles) next() (string, error) {
	for {
		h, err := t.Next()
		if err != nil {
			return "", err
		}
		if h.Typeflag == tar.TypeReg {
			return h.Name, nil
		}
	}
}

func (t *tarFiles) open() (io.Reader, error) { return t.Reader, nil }

func openZip(in io.Reader) (*zipFiles, error) {
	all, err := io.ReadAll(io.LimitReader(in, MaxZip+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if len(all) > MaxZip {
		return nil, fmt.Errorf("is a zip archive of more than %d MiB", MaxZip>>20)
	}
	z, err := zip.NewReader(bytes.NewReader(all), int64(len(all)))
	if err != nil {
		return nil, fmt.Errorf("cannot be unpacked: %w", err)
	}
	return &zipFiles{rest: z.File}, nil
}

type zipFiles struct {
	rest []*zip.File
	file *zip.File
}

func (z *zipFiles) next() (string, error) {
	for len(z.rest) > 0 {
		z.file, z.rest = z.rest[0], z.rest[1:]
		if z.file.Mode().IsRegular() {
			return z.file.Name, nil
		}
	}
	return "", io.EOF
}

func (z *zipFiles) open() (io.Reader, error) { return z.file.Open() }
