// Package hostset holds sets of host names, as block lists have them: a million
// names and more in little memory, asked for every request.
package hostset

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/gaissmai/bart"
)

// A Set is an immutable set of hosts, safe for concurrent use. A nil Set is
// empty.
//
// Its entries stand one behind the other in text, and are found by a hash table of
// groups. What the table is looked at for mostly is a name that is not there, so it
// has a byte of each hash apart, which a processor's cache can hold, and those of a
// group are compared at once.
type Set struct {
	text  chunks
	tags  []uint64 // a byte of each entry's hash for a group; 0 for no entry
	slots []uint32 // where in text the entries of the groups are
	seed  maphash.Seed
	size  int
	paths int
	nets  *bart.Lite // nil: no address blocks

	shortest, longest int // bytes of an entry: "com" mostly need not be looked for
}

const (
	groupSize = 8 // the bytes of a tag word
	groupFill = 5 // of them are taken, on average
)

// What an entry says.
const (
	exact           byte = 1 << iota // the name is in the set
	below                            // so is every name below it
	except                           // neither it nor any name below is
	belowImportant                   // as below, whatever except says
	exceptImportant                  // as except, whatever else is said
	under                            // every name below it is in the set, and the name is not
	exceptExact                      // as except, for the name alone
	exceptUnder                      // as except, for the names below it
)

// Bits that hold for the name alone, and for names below it alone.
const (
	onlyName  = exact | exceptExact
	onlyBelow = under | exceptUnder
)

// Len is the number of different entries, exceptions among them.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return s.size
}

// Match reports whether host, a name or address as policy.ParseHost returns it,
// is in the set, and which entry says so: the longest. It does not allocate, but for a host in
// an address block.
func (s *Set) Match(host string) (entry string, ok bool) {
	if s.Len() == 0 {
		return "", false
	}
	important := ""
	excepted := false
	var some [8]probe
	for rest, more := host, true; more; {
		// All begin before the first is looked at, so that the processor waits for
		// memory once and not for each.
		n := 0
		for name := rest; more && n < len(some); name = rest {
			if len(name) >= s.shortest && len(name) <= s.longest {
				some[n] = s.probe(maphash.String(s.seed, name))
				some[n].name = name
				n++
			}
			_, rest, more = strings.Cut(rest, ".")
		}
		for i := range some[:n] {
			name, says := some[i].name, s.find(&some[i])
			if len(name) < len(host) {
				says &^= onlyName
			} else {
				says &^= onlyBelow
			}
			if says&exceptImportant != 0 {
				return "", false
			}
			if says&(exact|below|under) != 0 && entry == "" {
				entry = name
			}
			if says&belowImportant != 0 && important == "" {
				important = name
			}
			excepted = excepted || says&(except|exceptExact|exceptUnder) != 0
		}
	}
	if important != "" {
		return important, true
	}
	if excepted {
		return "", false
	}
	if entry == "" && s.nets != nil {
		return s.block(host)
	}
	return entry, entry != ""
}

// block returns the smallest address block that holds host.
func (s *Set) block(host string) (entry string, ok bool) {
	if last := host[len(host)-1]; (last < '0' || last > '9') && strings.IndexByte(host, ':') < 0 {
		return "", false // a name
	}
	a, err := netip.ParseAddr(host)
	if err != nil || !s.nets.Contains(a) {
		return "", false
	}
	p, _ := s.nets.LookupPrefixLPM(netip.PrefixFrom(a, a.BitLen()))
	return p.String(), true
}

// A probe is the search for a name.
type probe struct {
	name  string
	group int
	tags  uint64 // of the group
	tag   uint64 // of the name, in every byte
}

const (
	low  = 0x0101010101010101 // the lowest bit of every byte
	high = low << 7
)

// zeros has the highest bit of every byte of x that is zero. Above one of these it
// may have that of a byte that is 1.
func zeros(x uint64) uint64 { return (x - low) &^ x & high }

// probe begins the search for a hash.
func (s *Set) probe(hash uint64) probe {
	// The high half scaled to the table's size; the low byte is left for the tag.
	group := int(hash >> 32 * uint64(len(s.tags)) >> 32)
	return probe{group: group, tags: s.tags[group], tag: low * uint64(max(byte(hash), 1))}
}

// next goes on to the group behind, where what found no room in the one before
// stands.
func (s *Set) next(p *probe) {
	if p.group++; p.group == len(s.tags) {
		p.group = 0
	}
	p.tags = s.tags[p.group]
}

// find returns what the entry of p's name says; 0 where there is none.
func (s *Set) find(p *probe) byte {
	for ; ; s.next(p) {
		for hits := zeros(p.tags ^ p.tag); hits != 0; hits &= hits - 1 {
			if name, says := s.text.at(s.slots[p.group*groupSize+bits.TrailingZeros64(hits)/8]); string(name) == p.name {
				return *says
			}
		}
		if zeros(p.tags) != 0 {
			return 0
		}
	}
}

// newSet makes a set of n entries. What entries of the same name say is joined.
func newSet(text chunks, nets *bart.Lite, n, paths int) *Set {
	s := &Set{nets: nets, paths: paths, text: text.clipped(), seed: maphash.MakeSeed(), shortest: 255}
	s.tags = make([]uint64, n/groupFill+1)
	s.slots = make([]uint32, len(s.tags)*groupSize)
	if nets != nil {
		s.size = nets.Size()
	}
	for at := range s.text.all() {
		name, says := s.text.at(at)
		if !s.add(name, *says, at) {
			continue
		}
		s.size++
		s.shortest, s.longest = min(s.shortest, len(name)), max(s.longest, len(name))
	}
	return s
}

// add enters the entry at an address. It returns false where the name is there
// already, which then says that too.
func (s *Set) add(name []byte, says byte, at uint32) bool {
	for p := s.probe(maphash.Bytes(s.seed, name)); ; s.next(&p) {
		for hits := zeros(p.tags ^ p.tag); hits != 0; hits &= hits - 1 {
			if has, before := s.text.at(s.slots[p.group*groupSize+bits.TrailingZeros64(hits)/8]); string(has) == string(name) {
				*before |= says
				return false
			}
		}
		if free := zeros(p.tags); free != 0 {
			i := bits.TrailingZeros64(free) / 8
			s.tags[p.group] |= p.tag & (0xff << (8 * i))
			s.slots[p.group*groupSize+i] = at
			return true
		}
	}
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
