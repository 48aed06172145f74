package catalog

import (
	_ "embed"
	"fmt"
	"sync"
)

//go:embed apple.yaml
var appleYAML []byte

var embedded = sync.OnceValue(func() []Row {
	rows, err := ParseFile("apple.yaml", appleYAML)
	if err != nil {
		panic(fmt.Sprintf("catalog: the embedded catalogue is broken: %v", err))
	}
	return rows
})

// Embedded returns the rows of the catalogue built into the binary: the July
// 2023 edition of Apple's article in its order, then what later editions are
// known to have added. The slice and its rows must not be modified.
func Embedded() []Row { return embedded() }
