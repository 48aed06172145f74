package api

import (
	_ "embed"
	"net/http"
	"sync"

	"github.com/goccy/go-yaml"
)

//go:embed openapi.yaml
var openAPIYAML []byte

// OpenAPI is the document of the API (OpenAPI 3.1), as JSON.
var OpenAPI = sync.OnceValue(func() []byte {
	text, err := yaml.YAMLToJSON(openAPIYAML)
	if err != nil {
		panic(err) // a mistake in the file, which the tests read
	}
	return text
})

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(OpenAPI())
}
