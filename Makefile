# Modelhub: `make up` starts it, `make test` tests it. `make help` lists the rest.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements.txt constraints.txt
# Named by content: an install is done once per version of the requirements, whatever the dates of files say.
STAMP := $(VENV)/.installed-$(shell cat $(REQUIREMENTS) | sha256sum | cut -c1-16)
# Override with PYTHON=…; 3.11 to 3.13 have wheels of all that is needed.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$python; break; }; done)
WORKERS ?= 2

.PHONY: help
help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: install
install: $(STAMP) ## makes .venv and installs what is needed, once

$(STAMP):
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 to 3.13 found: install one (Debian: apt-get install python3 python3-venv) or name it with PYTHON=…" >&2; exit 1; fi
	@if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
		$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
			echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }; \
		echo "Making $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear $(VENV); fi
	@echo "Installing $(firstword $(REQUIREMENTS)) (several minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -r $(firstword $(REQUIREMENTS))
	@rm -f $(VENV)/.installed-* && touch $@

.PHONY: up
up: install ## starts everything; Ctrl-C stops everything
	@$(BIN)/python manage.py up

.PHONY: test
test: install browser ## runs all tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

.PHONY: browser
browser: install ## installs Chromium for the browser tests where there is none (Debian), once
	@$(BIN)/python -m tests.browser.chromium

.PHONY: screenshots
screenshots: install browser ## takes pictures of every page of the console into docs/screenshots
	@$(BIN)/python -m tests.browser.screenshots $(ARGS)

.PHONY: proto
proto: install ## compiles the gRPC door's messages
	@cd loaderd/gateway/grpc && $(abspath $(BIN))/python -m grpc_tools.protoc -I. --descriptor_set_out=compiled.binpb inference.proto health.proto

.PHONY: lint
lint: install ## style, types, who imports whom, migrations
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -W ignore manage.py makemigrations --check --dry-run

.PHONY: format
format: install ## formats the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: bench
bench: install ## measures loads, unloads, predictions and memory as ratios within one run (needs wrk)
	@$(BIN)/python -m tests.performance $(ARGS)

.PHONY: bench-peers
bench-peers: install ## measures us beside FastAPI, Triton, TorchServe, MLServer, BentoML, LitServe (needs wrk, Java 17)
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: scale
scale: install browser ## measures the console with 10,000 models and 40 loaded ones
	@$(BIN)/python -m tests.performance.console $(ARGS)

.PHONY: endurance
endurance: install ## breaks, fills and switches the running product for half an hour; a table of what it did
	@$(BIN)/python -m tests.endurance $(ARGS)
