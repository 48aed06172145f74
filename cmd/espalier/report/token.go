package report

import (
	"time"

	"espalier/web/signin"
)

// A Token is one of the API, without what would let anybody use it.
type Token struct {
	Name    string      `json:"name"`
	Role    signin.Role `json:"role"`
	Created time.Time   `json:"created"`
	Expires time.Time   `json:"expires,omitzero"`
	expired bool
}

// NewTokens returns what is to be shown of tokens, never nil.
func NewTokens(tokens []signin.Token) []Token {
	list := []Token{}
	for _, t := range tokens {
		list = append(list, Token{t.Name, t.Role, t.Created, t.Expires, t.Expired(time.Now())})
	}
	return list
}

// WriteTokens writes a table of tokens.
func WriteTokens(s Screen, tokens []Token) error {
	t := NewTable("NAME", "ROLE", "CREATED", "EXPIRES")
	for _, x := range tokens {
		expires := in(plain, Local(x.Expires))
		if x.expired {
			expires = in(red, "expired")
		}
		t.Add(x.Name, x.Role, Local(x.Created), expires)
	}
	return t.Write(s)
}
