# make up     a demo repository, gateway (4929) and web server (8080), a first publish, and serving on
# make test   ruff, mypy --strict, all tests
# make bench  benchmarks (beside the reference, where its programs are on PATH)
# make conformance  the conformance suite against this gateway, and the reference where it is installed; REPORT=/tmp/report
# make clean  remove .venv and caches; cvmfs-root stays
.POSIX:
PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
# one more than processors: some tests wait for the deployed programs
WORKERS = $$(( $$(getconf _NPROCESSORS_ONLN) + 1 ))

# what `make conformance` writes, and with which ending
REPORT = build/conformance

.PHONY: up test lint types unit bench conformance clean

up: $(VENV)/.run
	@exec $(BIN)/cvmfs-gw --root ./cvmfs-root demo

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench

conformance: $(VENV)/.dev
	$(BIN)/python -m conformance local --quiet --reference --destructive \
		--json $(REPORT).json --junit $(REPORT).xml --html $(REPORT).html

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (found: $$($(PYTHON) -V 2>&1)); set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "Python's venv is missing: install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.python pyproject.toml
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
