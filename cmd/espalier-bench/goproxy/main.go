// Command goproxy is elazarl/goproxy as it is shipped, served by net/http: a
// peer for espalier-bench to compare with. Its argument is the listen address.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/elazarl/goproxy"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: goproxy ADDR")
	}
	p := goproxy.NewProxyHttpServer()
	// The environment of whoever runs the bench must not add another hop.
	p.Tr.Proxy = nil
	p.ConnectDial = nil
	log.Fatal(http.ListenAndServe(os.Args[1], p))
}
