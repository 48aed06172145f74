package catalog

// Embedded returns the rows of the catalogue built into the binary.
func Embedded() []Row { return nil }

// Load reads a catalogue file, as `espalier catalog import` writes it. Errors
// name the file and line.
func Load(path string) ([]Row, error) { return nil, nil }
