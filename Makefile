# `make test` needs nothing but Go, make and, for what is missing, apt.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS  = -s -w -X main.version=$(VERSION)

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build run test check unit fuzz bench deps package clean

build: ## the binary, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o espalier ./cmd/espalier

run: ## start it on the embedded defaults
	$(GO) run ./cmd/espalier run

test: deps check unit ## all that must pass before a change lands

deps: ## what the tests need, by package name
	@.ci/deps

check:
	@unformatted="$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go'))"; \
	if [ -n "$$unformatted" ]; then echo "gofmt is needed for:" $$unformatted; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	CGO_ENABLED=0 GOOS=darwin $(GO) vet ./proxy/... ./policy/... ./pac/... ./web/... ./configs/... ./cmd/espalier

unit:
	$(GO) test -race -timeout 20m ./...

FUZZTIME ?= 30s
fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg || exit 1; \
		done; \
	done

bench: ## the comparison with other proxies, and the Go benchmarks
	$(GO) run ./cmd/espalier-bench --install --markdown docs/performance.md
	$(GO) test -run '^$$' -bench . -benchmem ./policy/... ./pac/... ./proxy/...

clean:
	rm -rf espalier espalier-bench dist
