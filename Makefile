# Vitrine: build, run, test. `make help` lists the targets.

GO           ?= go
BIN          := bin/vitrine
STATICCHECK  := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME     ?= 5s
LDFLAGS      := -s -w
# Without a generator of manual pages and charts in formats other than SVG, which libraries
# bring along and initialise at each start.
TAGS         := urfave_cli_no_docs minimal
GUEST_TESTS  := ./vmm ./cmd/vitrine ./cmd/internal/lab
export CGO_ENABLED = 0

.PHONY: all run test test-both test-slow check fuzz bench cross guest-images verify-images labs pictures screenshots view-vendor clean help

all: $(BIN) ## build bin/vitrine

# The Go tool knows best what is out of date.
.PHONY: $(BIN)
$(BIN):
	$(GO) build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $@ ./cmd/vitrine

run: $(BIN) ## boot the embedded guest to a shell
	@$(BIN) run

test: ## unit tests, guest tests (where /dev/kvm is), and each fuzz target for a moment
	@./.ci/test
	@FUZZTIME=$(FUZZTIME) ./.ci/fuzz

# A guest at a time: two share what little an emulated kernel gets.
test-both: ## the guest tests with each accelerator alone; hours where KVM emulates guest kernels
	@PACKAGES="$(GUEST_TESTS)" VITRINE_TEST_ACCEL=soft ./.ci/test
	@PACKAGES="$(GUEST_TESTS)" VITRINE_TEST_ACCEL=kvm ./.ci/test -timeout 12h -p 1 -parallel 1

test-slow: ## also the guests that take minutes, or an hour where KVM emulates guest kernels
	@VITRINE_SLOW=1 ./.ci/test -timeout 6h

check: ## formatting, vet, staticcheck, tidy
	@out=$$(gofmt -l .); test -z "$$out" || { echo "not gofmt-clean: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff

fuzz: ## each fuzz target for longer, and 10 million instructions compared with the processor
	@FUZZTIME=60s ./.ci/fuzz
	@./.ci/diff

bench: $(BIN) ## measure
	$(GO) test -run '^$$' -bench . -benchmem ./...
	@./.ci/trace-cost

cross: ## build for the other systems, and see that their tests would compile
	@for t in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do \
	  echo $$t; GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build -o /dev/null ./cmd/vitrine || exit 1; done
	@for t in darwin/arm64 windows/amd64; do \
	  echo $$t: tests; GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) vet ./... || exit 1; done

guest-images: ## rebuild the embedded guest
	guest-images/build.sh

verify-images: ## prove that the committed images are what the recipe makes
	guest-images/verify.sh

clean: ## remove what was built
	rm -rf bin

labs: ## assemble the programs of docs/labs
	@docs/labs/build.sh

pictures: $(BIN) ## measure, and take the README's picture of the report (needs chromium)
	docs/pictures/make.sh

screenshots: $(BIN) ## take the pictures of vitrine view in docs/pictures (needs chromium)
	$(GO) run ./cmd/internal/view/pictures -vitrine $(BIN) -out docs/pictures

view-vendor: ## fetch the terminal that vitrine view embeds, at the version that is pinned
	cmd/internal/view/web/vendor/fetch.sh

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t16
