# A count: a duration makes go1.26 fail now and then with "context deadline exceeded" (go.dev/issue/75804).
FUZZTIME ?= 20000x
FUZZERS = grep -rnoE --include='*_test.go' --exclude-dir=node_modules '^func Fuzz[[:alnum:]_]+' . | sed -E 's,/[^/]*:[0-9]+:func , ,' | sort -u
.DEFAULT_GOAL := help
.PHONY: help build demo test full race fuzz bench lint check mutants soak realnet browser golden release clean
help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10
build: ## bin/cistern
	go build -o bin/cistern ./cmd/cistern
demo: build ## index a simulated network and show it
	bin/cistern demo
test: ## the fast part of the tests
	go test -short -parallel 8 ./...
full: ## all tests
	go test -parallel 8 -timeout 30m ./...
race: ## the fast tests, with few of the seeds, with the race detector; LONG=1 for the others too
	go test -race $(if $(LONG),,-short) -timeout 60m ./...
fuzz: ## every fuzz target for FUZZTIME (20000x, some seconds)
	@$(FUZZERS) | while read -r dir name; do echo "fuzz $$dir $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$dir" || exit 1; done
bench: ## benchmarks; BENCHMARKS.md has the figures
	go test -run '^$$' -bench . -benchmem -timeout 30m ./...
lint: ## gofmt, go vet, staticcheck, and whether mutants fit the source
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	go vet ./... && go vet -tags realnet,browser ./cmd/cistern && go tool staticcheck ./... && go run ./testdata/mutants -fit
check: lint full race fuzz ## what has to pass before a commit
mutants: ## break invariants one by one: each time a test must fail; ONLY=text for some
	go run ./testdata/mutants $(ONLY)
soak: ## SEEDS (2000) seeded networks with faults and crashes, from SEED (1000) on
	CISTERNTEST_SEED=$(or $(SEED),1000) CISTERNTEST_SEEDS=$(or $(SEEDS),2000) go test -count 1 -timeout 6h -run '^Test(Model|Crash|Refilter|Consumers)$$' ./cmd/cistern
realnet: ## index the reference PDS and compare every record
	testdata/realnet/install.sh && go test -tags realnet -run Realnet -count 1 -timeout 20m -v ./cmd/cistern
browser: ## look at the dashboard in headless Chromium; CISTERNTEST_SCREENS=DIR keeps the screenshots
	go test -tags browser -run Browser -count 1 -timeout 5m -v ./cmd/cistern
golden: ## rewrite the golden files
	@for dir in $$(grep -rlE --include='*_test.go' --exclude-dir=node_modules 'flag\.Bool\("update"' . | xargs -rn1 dirname | sort -u); do go test -count 1 "$$dir" -update || exit 1; done
release: ## dist: archives, Debian packages, bills of materials, checksums; then test them
	packaging/release.sh && packaging/test.sh
clean: ## remove what the targets above made
	rm -rf bin dist testdata/realnet/node_modules && go clean -testcache
