# The short names for everything one does with this repository. `make help` lists them.
#
#   PYTHON=python3.13 make install   another interpreter (3.11 to 3.14)
#   VENV=/some/folder make test      another environment folder
#   ARGS="-k filters" make test      more arguments for pytest
#   make soak SOAK_MINUTES=30        only the long run, so long; ARGS="--seed 7" repeats one

PYTHON ?= $(shell sh scripts/find_python.sh)
VENV ?= .venv
ARGS ?=
NAME ?=

BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

export COVERAGE_FILE ?= .coverage

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install demo test check static package bench soak conformance docs format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMPS)/package  ## make .venv and install Heliograph with PostgreSQL into it

demo: install  ## start PostgreSQL, load the demo shop and serve it on http://127.0.0.1:8000
	$(BIN)/heliograph dev --demo

test: $(STAMPS)/dev system interop  ## static checks, then the whole suite with coverage
	@$(MAKE) --no-print-directory check
	@$(BIN)/python scripts/run_tests.py $(ARGS)

check: $(STAMPS)/dev  ## static checks: lint, format, types, layers, licences, sizes
	@$(MAKE) --no-print-directory static package

static: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

package: $(STAMPS)/dev
	$(BIN)/python scripts/check_licences.py
	$(BIN)/python scripts/check_sizes.py

bench: $(STAMPS)/dev system  ## make bench NAME=fanout: run benchmarks/fanout.py
	@test -n "$(NAME)" && test -f "benchmarks/$(NAME).py" || { \
		echo "usage: make bench NAME=…, one of:"; \
		ls benchmarks/*.py 2>/dev/null | sed 's|benchmarks/|  |; s|\.py$$||' | grep -v '^  _'; exit 2; }
	$(BIN)/python "benchmarks/$(NAME).py" $(ARGS)

soak: $(STAMPS)/dev system interop  ## the tests that take hours, then the long run of 30 minutes
ifdef SOAK_MINUTES
	PYTHONPATH=tests $(BIN)/python -m soak --minutes "$(SOAK_MINUTES)" $(ARGS)
else
	$(BIN)/python -m pytest -m soak $(ARGS)
	PYTHONPATH=tests $(BIN)/python -m soak --minutes 30
endif

CLIENTS := $(addprefix tests/interop/test_,python_client.py supabase_js.py client_traps.py)
CLIENTS += tests/integration/server/test_python_client.py

conformance: $(STAMPS)/dev system interop  ## only the values of walrus and the official clients
	$(BIN)/python -m pytest tests/conformance $(CLIENTS) $(ARGS)

docs: $(STAMPS)/package  ## write the pages that are generated from the code
	$(BIN)/python scripts/generate_docs.py

format: $(STAMPS)/dev  ## let ruff write its format and its safe corrections
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the targets above have made, except PostgreSQL's data
	rm -rf "$(VENV)" interop/node_modules build dist .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache benchmarks/results

# --- what the targets need ------------------------------------------------------------------
# A stamp is younger than what it was made from, so nothing is installed twice.

$(STAMPS)/venv:
	@test -n "$(PYTHON)" || { echo "Heliograph needs Python 3.11 to 3.14; none was found" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv "$(VENV)"
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/runtime: requirements/build.txt requirements/runtime.txt | $(STAMPS)/venv
	$(PIP) install --no-deps -r requirements/build.txt -r requirements/runtime.txt
	@touch $@

$(STAMPS)/package: pyproject.toml $(STAMPS)/runtime
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/package
	$(PIP) install --no-deps -r requirements/dev.txt
	$(PIP) check
	@touch $@

.PHONY: system interop
system:
	@sh scripts/install_system.sh

interop: interop/node_modules/.stamp

interop/node_modules/.stamp: interop/package.json interop/package-lock.json | $(STAMPS)/dev
	$(BIN)/python scripts/node.py npm ci --prefix interop --ignore-scripts --no-audit --no-fund
	@touch $@
