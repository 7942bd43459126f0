# Two commands matter: `make demo` and `make test`. Both set up everything first; a second call installs nothing.
SHELL := bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] < (3,13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
RUN := $(BIN)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-all docs fuzz soak bench lint format lock licences clean

help:  ## what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: .venv/.stamp  ## build .venv from pyproject.toml and constraints.txt (no-op when nothing changed)

.venv/.stamp: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "LoRe needs Python 3.11 or 3.12 on the PATH; install one, or call make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up .venv with $$($(PYTHON) --version) (about two minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@PYTHONWARNINGS=ignore $(RUN) -m pip install -q -c constraints.txt -e '.[dev]' 2> >(grep -v 'is ignored: it is neither a file' >&2)
	@touch $@

demo: setup  ## the whole walk on real Crafter: collect, advise, train two arms, evaluate, report
	@$(BIN)/lore demo $(ARGS)

test: setup  ## the tests (six to ten minutes on two cores)
	@$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: setup  ## everything, slow learning checks included
	@LORE_EXPLORE=1 $(RUN) -m pytest -m '' --timeout 1800 $(ARGS)

docs: .venv/.docs  ## the documentation as a site in build/site; a warning or a broken link fails
	@NO_MKDOCS_2_WARNING=1 PYTHONPATH=.:datasets $(RUN) -m mkdocs build --strict --quiet && echo build/site/index.html

.venv/.docs: .venv/.stamp
	@PYTHONWARNINGS=ignore $(RUN) -m pip install -q -c constraints.txt -e '.[docs]' 2> >(grep -v 'is ignored: it is neither a file' >&2)
	@touch $@

fuzz: setup  ## new examples for whatever is read from outside, and for the store: make fuzz SECONDS=60
	@$(RUN) tests/fuzz $(or $(SECONDS),60)

soak: setup  ## sizes of a long life (a million rows, 100 versions): memory and seconds, as JSON under benchmarks/results
	@$(RUN) -m benchmarks.soak $(ARGS)

bench: setup  ## every benchmark, results as JSON under benchmarks/results
	@$(RUN) -m benchmarks $(ARGS)

lint: setup  ## what pre-commit and CI check
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports --no-cache && $(BIN)/pyright

format: setup  ## format and fix
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: setup  ## renew the pins in constraints.txt
	@$(RUN) .ci/supply.py lock

licences: setup  ## the licence of everything that LoRe needs
	@$(RUN) .ci/supply.py licences

clean:  ## remove what was built and run (the datasets in runs/ included)
	@rm -rf .venv runs build *.egg-info .pytest_cache .ruff_cache
