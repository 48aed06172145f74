// Package hostset holds sets of host names, as block lists have them: a million
// names and more in little memory, asked for every request.
package hostset

import (
	"hash/maphash"
	"strings"
)

// A Set is an immutable set of hosts, safe for concurrent use. A nil Set is
// empty.
//
// Its entries stand one behind the other in text, and are found by an open hash
// table. What the table is looked at for mostly is a name that is not there, so
// it has a byte of each hash apart, which a processor's cache can hold.
type Set struct {
	text  chunks
	tags  []byte   // a byte of the entry's hash; 0 for no entry
	slots []uint32 // where in text the entry is
	seed  maphash.Seed
	size  int

	shortest, longest int // bytes of an entry: "com" mostly need not be looked for
}

// What an entry says.
const (
	exact           byte = 1 << iota // the name is in the set
	below                            // so is every name below it
	except                           // neither it nor any name below is
	belowImportant                   // as below, whatever except says
	exceptImportant                  // as except, whatever else is said
)

// Len is the number of different entries, exceptions among them.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return s.size
}

// Match reports whether host, a name or address as policy.ParseHost returns it,
// is in the set, and which entry says so: the longest. It does not allocate.
func (s *Set) Match(host string) (entry string, ok bool) {
	if s.Len() == 0 {
		return "", false
	}
	important := ""
	excepted := false
	says := s.find(host)
	for name := host; ; says = s.find(name) &^ exact {
		if says&exceptImportant != 0 {
			return "", false
		}
		if says&(exact|below) != 0 && entry == "" {
			entry = name
		}
		if says&belowImportant != 0 && important == "" {
			important = name
		}
		excepted = excepted || says&except != 0
		dot := strings.IndexByte(name, '.')
		if dot < 0 {
			break
		}
		name = name[dot+1:]
	}
	if important != "" {
		return important, true
	}
	if excepted {
		return "", false
	}
	return entry, entry != ""
}

// find returns what the entry of that name says; 0 where there is none.
func (s *Set) find(name string) byte {
	if len(name) < s.shortest || len(name) > s.longest {
		return 0
	}
	slot, tag := s.place(maphash.String(s.seed, name))
	for ; s.tags[slot] != 0; slot = s.next(slot) {
		if s.tags[slot] != tag {
			continue
		}
		if has, says := s.text.at(s.slots[slot]); string(has) == name {
			return *says
		}
	}
	return 0
}

// place returns where the search for a hash begins, and its tag.
func (s *Set) place(hash uint64) (slot int, tag byte) {
	// The high half scaled to the table's size; the low byte is left for the tag.
	return int(hash >> 32 * uint64(len(s.slots)) >> 32), max(byte(hash), 1)
}

func (s *Set) next(slot int) int {
	if slot++; slot < len(s.slots) {
		return slot
	}
	return 0
}

// newSet makes a set of n entries. What entries of the same name say is joined.
func newSet(text chunks, n int) *Set {
	s := &Set{text: text.clipped(), seed: maphash.MakeSeed(), shortest: 255}
	size := n + n/2 + 1 // two thirds full
	s.tags, s.slots = make([]byte, size), make([]uint32, size)
	for at := range s.text.all() {
		name, says := s.text.at(at)
		slot, tag := s.place(maphash.Bytes(s.seed, name))
		for ; s.tags[slot] != 0; slot = s.next(slot) {
			if s.tags[slot] != tag {
				continue
			}
			if has, before := s.text.at(s.slots[slot]); string(has) == string(name) {
				*before |= *says
				break
			}
		}
		if s.tags[slot] == 0 {
			s.tags[slot], s.slots[slot] = tag, at
			s.size++
			s.shortest, s.longest = min(s.shortest, len(name)), max(s.longest, len(name))
		}
	}
	return s
}

// chunks are entries in pieces of memory, none of which has to grow: the length
// of a name, what is said of it, the name. None goes over the end of a chunk.
type chunks [][]byte

const (
	chunkBits = 20
	chunkSize = 1 << chunkBits
)

// add appends an entry; a name has 255 bytes at most.
func (c *chunks) add(name string, says byte) {
	last := len(*c) - 1
	if last < 0 || len((*c)[last])+2+len(name) > chunkSize {
		*c = append(*c, nil)
		last++
	}
	(*c)[last] = append(append((*c)[last], byte(len(name)), says), name...)
}

// at returns the entry at an address: chunk and place in it.
func (c chunks) at(addr uint32) (name []byte, says *byte) {
	rest := c[addr>>chunkBits][addr&(chunkSize-1):]
	return rest[2 : 2+rest[0]], &rest[1]
}

// all are the addresses of the entries.
func (c chunks) all() func(yield func(uint32) bool) {
	return func(yield func(uint32) bool) {
		for i, chunk := range c {
			for at := 0; at < len(chunk); at += 2 + int(chunk[at]) {
				if !yield(uint32(i<<chunkBits | at)) {
					return
				}
			}
		}
	}
}

// clipped returns c without room to grow.
func (c chunks) clipped() chunks {
	for i, chunk := range c {
		c[i] = append(make([]byte, 0, len(chunk)), chunk...)
	}
	return c
}
