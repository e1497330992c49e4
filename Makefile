# Every target does its own set-up: `make demo` and `make test` work on a bare machine with Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SHELL := bash
# pip, with a line for each package that it fetches: silence for minutes looks like a hang
PIP = set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check
TOLD = | awk '/^ *(Downloading|Using cached) / {print "  " $$2, $$3, $$4} /^Installing/ {print "  unpacking them, a minute or two"} {fflush()}'

.PHONY: help demo compare bench test test-slow format config-docs docs lock enhance app audit chaos clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# A stamp that is newer than the pins means that they are installed, and this checkout with them (editable).
# LOCKED=1 installs requirements.lock, where each file must have one of the hashes that `make lock` wrote.
$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "error: Python 3.11 to 3.13 is needed; try: make PYTHON=python3.12"; exit 2; }
	@echo "setting up $(VENV) (once; downloads about 3 GB and takes some minutes; smaller without CUDA: docs/install.md)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(if $(LOCKED),$(PIP) --require-hashes -r requirements.lock $(TOLD))
	@$(PIP) -e . $(TOLD)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@$(PIP) -r requirements-dev.txt $(TOLD)
	@touch $@

demo: $(VENV)/.installed ## train RAVE offline, enhance and measure held-out photos (runs/quickstart)
	@$(BIN)/python -m tools quickstart

compare: $(VENV)/.installed ## train CLIP-LIT, CLIP-LIT-Latent and RAVE offline under one budget (runs/compare)
	@$(BIN)/python -m tools compare-methods

bench: $(VENV)/.installed ## time and memory beside the plain way (docs/results/bench.json; about an hour)
	@$(BIN)/python -m lab.bench

enhance: $(VENV)/.installed ## enhance a folder: make enhance IN=photos [OUT=results]
	@test -n "$(IN)" || { echo "error: IN: expected a folder or a photo; for example: make enhance IN=my_photos"; exit 2; }
	@$(BIN)/python inference.py "$(IN)" $(if $(OUT),--output "$(OUT)")

$(VENV)/.installed-app: requirements-app.txt $(VENV)/.installed
	@$(PIP) --no-deps -r requirements-app.txt $(TOLD)
	@touch $@

app: $(VENV)/.installed-app ## the web page: before and after, strength, download, measuring (on this computer only)
	@$(BIN)/python -m serving.app

test: $(VENV)/.installed-dev ## lint and the quick tests, offline
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.installed-dev ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow

format: $(VENV)/.installed-dev ## format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

config-docs: $(VENV)/.installed ## rewrite configs/README.md and configs/schema/ from the classes there
	@$(BIN)/python -m configs.docs

docs: $(VENV)/.installed ## rewrite the tables of README.md and docs/ from docs/results/
	@$(BIN)/python -m lab.report tables

lock: $(VENV)/.installed-dev ## write requirements.lock: every package with its hashes, which CI installs
	@$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" requirements.txt requirements-dev.txt -o requirements.lock

audit: $(VENV)/.installed-dev ## ask the database of known vulnerabilities about requirements.lock (needs network)
	@found=$$($(BIN)/uv tool run -q --from pip-audit==2.10.1 pip-audit --strict --progress-spinner off --require-hashes --disable-pip -r requirements.lock 2>&1) \
	  && echo "$$found" || { case "$$found" in \
	    *"known vulnerabilit"*) echo "$$found"; echo "error: audit: a package has a known vulnerability, see above" >&2 ;; \
	    *) echo "error: audit: the database of known vulnerabilities could not be asked: $${found##*$$'\n'}" >&2 ;; esac; exit 2; }

chaos: $(VENV)/.installed ## attack everything that reads, writes or stops (docs/results/chaos.json; SCALE=0.05: a twentieth)
	@$(BIN)/python -m lab.chaos --scale $(or $(SCALE),1)

clean: ## remove caches and the environment; runs/ and datasets/ stay
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache
