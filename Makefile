# `make demo` and `make test` need Python 3.10+, make and a network, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint types docs browser gpu dist test-wheel clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.examples ## Render scenes, train on them, write runs/demo/report.html (5 to 15 minutes on 2 cores).
	$(BIN)/python -m examples.cityscapes demo --out runs/demo

# Files keep their order: those with few tests, which would come last, are often the longest.
test: lint types ## Lint, type-check and run all tests.
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# What needs another library's training loop, a browser, a dataset or minutes is left out.
NOT_FAST := tests/neighbours tests/site tests/examples tests/test_benchmarks.py \
	tests/test_packaging.py tests/test_ways_to_weigh.py uncertainty_mtl/integrations
test-fast: $(VENV)/.dev ## Run the tests and doctests of the library (under a minute on 2 cores).
	$(BIN)/python -m pytest --numprocesses auto -m "not slow" $(NOT_FAST:%=--ignore=%)

lint: $(VENV)/.dev ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## Type-check the package and the examples.
	$(BIN)/mypy

docs: $(VENV)/.docs ## Build the site in docs/_build/html; a warning is an error.
	$(BIN)/python -m sphinx -W -n --keep-going -q -d docs/_build/doctrees docs docs/_build/html

browser: $(VENV)/.dev ## Open the site and the demo's report in headless Chromium.
	$(BIN)/python -m pytest tests/site/test_site.py

OUT ?= runs/gpu
gpu: ## Run what needs a GPU with PYTHON (python3) as it is; logs and results in OUT (runs/gpu).
	PYTHON="$(PYTHON)" bash benchmarks/gpu.sh "$(OUT)"

dist: $(VENV)/.dev ## Build the wheel and the source archive in dist/, and check them.
	rm -rf dist
	$(BIN)/python -m hatchling build
	$(BIN)/python -m twine check --strict dist/*

# Without the package beside them, the tests can import nothing but what the wheel installed.
# `append`, or the installed package's folder comes first and a backport in it hides a standard module.
# TORCH chooses a version: make test-wheel PYTHON=python3.10 TORCH='torch==2.4.*'
TORCH ?= torch
WHEEL := build/wheel
test-wheel: dist ## Test the built wheel in an environment of its own.
	rm -rf $(WHEEL)
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/python -m pip install --quiet "$$(echo dist/*.whl)[dev]" "$(TORCH)"
	cp -r README.md SECURITY.md benchmarks docs examples pyproject.toml tests $(WHEEL)
	cd $(WHEEL) && venv/bin/python -m pytest --numprocesses auto --import-mode append \
		tests/test_*.py tests/neighbours tests/site --pyargs uncertainty_mtl

clean: ## Remove the environment and everything that was built or measured.
	rm -rf $(VENV) build dist runs docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# One stamp per set of extras: a later target adds to the environment that an earlier one made.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
