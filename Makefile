# `make test` needs nothing but Go, make and, for what is missing, apt.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS  = -s -w -X main.version=$(VERSION)

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build run test check unit fuzz corpus soak prove bench deps package package-test container container-test appliance appliance-test clean

build: ## the binary, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o espalier ./cmd/espalier

run: ## start it on the embedded defaults
	$(GO) run ./cmd/espalier run

test: deps check unit ## all that must pass before a change lands
	@.ci/fuzz 2s fresh

deps: ## what the tests need, by package name
	@.ci/deps

check:
	@unformatted="$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go'))"; \
	if [ -n "$$unformatted" ]; then echo "gofmt is needed for:" $$unformatted; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	CGO_ENABLED=0 GOOS=darwin $(GO) vet ./proxy/... ./policy/... ./pac/... ./web/... ./configs/... ./cmd/espalier

# The race detector would sleep a second at the end of each package.
unit:
	GORACE="$$GORACE atexit_sleep_ms=20" $(GO) test -race -timeout 20m ./...

FUZZTIME ?= 30s
fuzz: ## every fuzz target for FUZZTIME; an input that fails is left under testdata/fuzz
	@.ci/fuzz $(FUZZTIME)

corpus: ## keep what fuzzing has found here as seeds for every test run
	@.ci/corpus

SOAK ?= 10m
soak: ## all kinds of traffic and faults for SOAK; ledger, records and counters agree, nothing grows
	ESPALIER_SOAK=$(SOAK) $(GO) test -timeout 1h -run '^TestSoak$$' -v ./cmd/espalier

TUNNELS ?= 20000
prove: ## the longer proofs, bounded by SOAK, TUNNELS and FUZZTIME: docs/proofs.md
	@$(MAKE) soak
	ESPALIER_SHORT_TUNNELS=$(TUNNELS) $(GO) test -timeout 30m -run '^TestShortTunnelsLeaveNothing$$' -v ./proxy/tunnel
	@$(MAKE) fuzz

bench: ## the comparison with other proxies, and the Go benchmarks; as root, on a quiet machine
	$(GO) build -o espalier-bench ./cmd/espalier-bench
	./espalier-bench --install --rounds 5 --markdown docs/bench.md
	./espalier-bench --user nobody --beside 1000 --peers espalier,squid,goproxy --scenarios bulk-down,bulk-up --markdown docs/bench-user.md
	./espalier-bench --idle 8500 --peers espalier,haproxy --scenarios idle --rounds 1
	$(GO) test -run '^$$' -bench . -benchmem ./policy/... ./pac/... ./proxy/... ./web/...

# The same commit gives the same bytes; `packaging/test/same` builds twice and compares.
package: ## deb, rpm and tarball for Linux in dist/
	@GO=$(GO) VERSION=$(VERSION) packaging/build

package-test: ## the packages installed, upgraded, removed and purged in roots of Debian's; as root
	@.ci/deps packages
	@GO=$(GO) packaging/test/same
	@packaging/test/files.sh dist
	@packaging/test/deb.sh dist/espalier_*_$$($(GO) env GOARCH).deb
	@packaging/test/rpm.sh dist/espalier-*.$$(uname -m).rpm
	@packaging/test/kubernetes.sh

container: ## the image of packaging/container, by podman, buildah or docker
	@GO=$(GO) VERSION=$(VERSION) packaging/container/build.sh

container-test: ## that image, built and started without privileges; as root
	@.ci/deps container
	@GO=$(GO) packaging/test/container.sh

appliance: ## a bootable image from the package in dist/; KEYS=FILE lets their holders in by SSH; as root
	@.ci/deps appliance
	@packaging/appliance/build.sh $(if $(KEYS),-k $(KEYS)) dist/espalier_*_amd64.deb dist/espalier.img

appliance-test: ## that image booted in qemu and used; as root
	@packaging/test/appliance.sh dist/espalier.img dist/espalier_*_amd64.deb

clean:
	rm -rf espalier espalier-bench dist
