# Every target does its own set-up: `make demo` and `make test` work on a bare machine with Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo compare bench test test-slow lint format config-docs enhance clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# A stamp that is newer than the pins means that they are installed.
$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; try: make PYTHON=python3.12"; exit 2; }
	@echo "setting up $(VENV) (once; downloads about 3 GB and takes some minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements-dev.txt
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

test: $(VENV)/.installed-dev ## lint and the quick tests, offline
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.installed-dev ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow

format: $(VENV)/.installed-dev ## format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

config-docs: $(VENV)/.installed ## rewrite configs/README.md and configs/schema/ from the classes there
	@$(BIN)/python -m configs.docs

clean: ## remove caches and the environment; runs/ and datasets/ stay
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache
