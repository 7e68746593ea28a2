# Everything there is to do with a clone of fillonce. `make` lists it. Needs Python 3.11 or newer, and make.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

# Settings, each given on the command line: make test WORKERS=0 ARGS="tests/unit -x"
ARGS ?=
PYTHON ?=
SEEDS ?= 10
# More than there are cores: most tests wait for processes.
WORKERS ?= 4

# pip does not take away what the lock no longer names, and the scripts in .venv hold the path of this folder. So another
# lock, or another folder, means a new .venv; another pyproject.toml only means that the project is registered again.
# Both go by content, not by time.
LOCK_ID := $(shell { pwd -P; cat requirements.txt; } | cksum | cut -d ' ' -f 1)
PROJECT_ID := $(shell cat pyproject.toml | cksum | cut -d ' ' -f 1)
LOCKED := .venv/.locked-$(LOCK_ID)
INSTALLED := .venv/.installed-$(PROJECT_ID)
PIP := .venv/bin/python -m pip --disable-pip-version-check -qq

.PHONY: help
help: ## list what there is
	@echo "make TARGET, one of:"
	@sed -n 's/^\([a-z-]*\):.*## /\1@/p' Makefile | awk -F @ '{ printf "  %-10s %s\n", $$1, $$2 }'

.PHONY: install
install: $(INSTALLED) ## make .venv and install all into it (PYTHON=python3.12 picks the interpreter of a new one)
	@echo "fillonce is installed in .venv, on $$(.venv/bin/python --version)."

$(LOCKED):
	@python=$$(sh ops/find-python.sh "$(PYTHON)") \
		&& echo "Installing the locked packages into .venv, with $$python; this takes about a minute." \
		&& "$$python" -m venv --clear .venv
	@$(PIP) install --require-hashes -r requirements.txt
	@touch $@

$(INSTALLED): $(LOCKED)
	@rm -f .venv/.installed-*
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: demo
demo: $(INSTALLED) ## run the demonstration: orders, workers killed, books checked (ARGS="--intents 200")
	@.venv/bin/fillonce demo $(ARGS)

.PHONY: test
test: $(INSTALLED) ## run the whole test suite (ARGS="tests/unit -x" for a part, WORKERS=0 for one process)
	@.venv/bin/pytest -n $(WORKERS) --dist worksteal $(ARGS)

.PHONY: lint
lint: $(INSTALLED) ## check style, types and layers
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo

.PHONY: check
check: lint test ## lint, then test: run it before you send a change

.PHONY: peers
peers: $(INSTALLED) ## kill workers of other job queues and of ours, side by side (10 minutes; Linux)
	@.venv/bin/python -m bench.peers $(ARGS)

.PHONY: bench
bench: $(INSTALLED) ## measure speed beside RQ, Celery, Huey and DBOS (10 minutes; ARGS=--publish; Linux)
	@.venv/bin/python -m bench.throughput $(ARGS)

.PHONY: recovery
recovery: $(INSTALLED) ## measure how soon a killed worker's order goes on (3 minutes; Linux)
	@.venv/bin/python -m bench.recovery $(ARGS)

.PHONY: gates
gates: $(INSTALLED) ## measure what guard, breaker and metrics cost an order (half a minute; ARGS=--publish; Linux)
	@.venv/bin/python -m bench.gates $(ARGS)

.PHONY: flat
flat: $(INSTALLED) ## measure work, looks and memory with a million finished orders (5 minutes; Linux)
	@.venv/bin/python -m bench.flat $(ARGS)

.PHONY: chaos
chaos: $(INSTALLED) ## break everything for long and print what came of it (SEEDS=10, ARGS="--only 3" repeats one)
	@.venv/bin/python -m tests.chaos.campaign --seeds $(SEEDS) $(ARGS)

.PHONY: chaos-tests
chaos-tests: $(INSTALLED) ## the chaos tests that are too long for `make test` (10 minutes)
	@.venv/bin/pytest -n $(WORKERS) --dist worksteal tests/chaos/long_*.py $(ARGS)

.PHONY: mutants
mutants: $(INSTALLED) ## take one protection away at a time and see that a test turns red (ARGS="--only no_witness")
	@.venv/bin/python -m tests.mutants $(ARGS)

.PHONY: check-ops
check-ops: ## check the files in ops/ with the tools that read them (installs those by apt)
	@bash ops/check-ops.sh

.PHONY: lock
lock: $(INSTALLED) ## make requirements.txt anew from pyproject.toml (ARGS=--upgrade for the newest versions)
	@uv=$$(mktemp -d) && trap 'rm -rf "$$uv"' EXIT && $(PIP) install --target "$$uv" uv \
		&& "$$uv/bin/uv" pip compile --quiet --all-extras --universal --python-version 3.11 --generate-hashes \
			--no-emit-index-url --no-emit-find-links --no-header --no-annotate \
			$(ARGS) --output-file requirements.txt pyproject.toml

.PHONY: clean
clean: ## remove .venv and caches, and nothing else
	@rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find app workers tests bench -type d -name __pycache__ -prune -exec rm -rf {} +
