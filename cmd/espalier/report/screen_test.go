package report

import (
	"bytes"
	"testing"
)

func TestTable(t *testing.T) {
	build := func() *Table {
		tb := NewTable("NAME", "COUNT", "WHAT")
		tb.Add(in(green, "a"), 5, in(dim, "a rather long description"))
		tb.Add("långt", 12345678, "")
		return tb
	}
	for _, tt := range []struct {
		name   string
		width  int
		colour bool
		want   string
	}{
		{"unlimited", 0, false, "NAME      COUNT  WHAT\na             5  a rather long description\nlångt  12345678\n"},
		{"cut", 30, false, "NAME      COUNT  WHAT\na             5  a rather lon…\nlångt  12345678\n"},
		{"too narrow, and no blank before the ellipsis", 5, false, "NAME      COUNT  WHAT\na             5  a rather…\nlångt  12345678\n"},
		{"colour", 0, true, "\x1b[1mNAME\x1b[0m      \x1b[1mCOUNT\x1b[0m  \x1b[1mWHAT\x1b[0m\n" +
			"\x1b[32ma\x1b[0m             5  \x1b[2ma rather long description\x1b[0m\nlångt  12345678\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := build().Write(Screen{Writer: &b, width: tt.width, colour: tt.colour}); err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), tt.want)
			}
		})
	}
}

func TestParagraphs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		width int
		want  string
	}{
		{"unlimited", 0, "\none two three four\nfive\n"},
		{"wrapped", 9, "\none two\nthree\nfour\nfive\n"},
		{"narrower than a word", 2, "\none\ntwo\nthree\nfour\nfive\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := (Screen{Writer: &b, width: tt.width}).Paragraphs("", "one two three four", "five"); err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.want {
				t.Errorf("got %q, want %q", b.String(), tt.want)
			}
		})
	}
}

func TestScreenIsPlainWhereThereIsNoTerminal(t *testing.T) {
	if s := NewScreen(&bytes.Buffer{}); s.colour || s.width != 0 {
		t.Errorf("got width %d, colour %t", s.width, s.colour)
	}
}
