# `make demo` and `make test` need Python 3.10+, make and a network, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint types docs browser clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.examples ## Render scenes, train on them, write runs/demo/report.html (about 6 minutes on 2 cores).
	$(BIN)/python -m examples.cityscapes demo --out runs/demo

test: lint types ## Lint, type-check and test.
	$(BIN)/python -m pytest --numprocesses auto

lint: $(VENV)/.dev ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## Type-check the package.
	$(BIN)/mypy

docs: $(VENV)/.docs ## Build the site in docs/_build/html; a warning is an error.
	$(BIN)/python -m sphinx -W -n --keep-going -q -d docs/_build/doctrees docs docs/_build/html

browser: $(VENV)/.dev ## Open the site and the demo's report in headless Chromium.
	$(BIN)/python -m pytest tests/test_site.py

clean: ## Remove the environment and everything that was built or measured.
	rm -rf $(VENV) build dist runs docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# One stamp per set of extras: a later target adds to the environment that an earlier one made.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
