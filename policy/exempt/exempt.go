// Package exempt has the hosts that are known not to bear TLS interception: devices
// identify themselves to them by client certificates, or expect the certificate of the
// host itself. Each has a public source.
package exempt

import (
	_ "embed"
	"sync"

	"github.com/goccy/go-yaml"
)

// A Row is a host pattern, and why interception leaves it alone.
type Row struct {
	Host   string `yaml:"host" json:"host"`     // a name, or *.name
	Group  string `yaml:"group" json:"group"`   // the product
	Source string `yaml:"source" json:"source"` // address of the vendor's page
	Date   string `yaml:"date" json:"date"`     // when the page was read
}

//go:embed exempt.yaml
var text []byte

var rows = sync.OnceValue(func() []Row {
	var list []Row
	if err := yaml.UnmarshalWithOptions(text, &list, yaml.DisallowUnknownField()); err != nil {
		panic("exempt.yaml: " + err.Error()) // a test reads it
	}
	return list
})

// Rows returns all rows, in the order of the file. They must not be modified.
func Rows() []Row { return rows() }

// Patterns returns the hosts of the rows.
func Patterns() []string {
	list := make([]string, len(rows()))
	for i, r := range rows() {
		list[i] = r.Host
	}
	return list
}
