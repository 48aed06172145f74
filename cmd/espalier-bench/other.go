//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "espalier-bench: needs Linux: it reads the proxy's cost from /proc")
	os.Exit(2)
}
