# Everything a newcomer or the CI runs. `make help` prints the line behind each target.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
STAMP := $(VENV)/setup.stamp
MVV := $(VENV)/bin/mvv
PYTEST := $(VENV)/bin/python -m pytest
DEMO := out/demo
DEMO_ASSETS ?= 12
DEMO_SEED ?= 0

.PHONY: help setup demo test test-slow bench lint clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## build .venv with everything; needs CPython 3.11, git and make
	@:

# Made anew when what is to be installed has changed; otherwise there is nothing to do.
$(STAMP): pyproject.toml scripts/setup.py
	@"$(PYTHON)" scripts/setup.py

demo: $(STAMP)  ## assets, a dataset, its check and its gallery, under out/demo; repeat it to go on
	$(MVV) assets make --out $(DEMO)/assets --count $(DEMO_ASSETS) --seed $(DEMO_SEED)
	$(MVV) build $(DEMO)/assets --out $(DEMO)/dataset --preset demo
	$(MVV) verify $(DEMO)/dataset
	$(MVV) report $(DEMO)/dataset --out $(DEMO)/report
	@echo
	@echo "The dataset is in $(DEMO)/dataset (its card: $(DEMO)/dataset/README.md)."
	@echo "To watch the clips, open $(CURDIR)/$(DEMO)/report/index.html in a browser."

test: $(STAMP)  ## the tests, without those that take minutes
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)  ## the tests that take minutes
	$(PYTEST) -m slow

bench: $(STAMP)  ## the benchmarks, over an hour; BENCH_ASSETS=FOLDER takes real models
	$(VENV)/bin/python benchmarks/engine.py $(if $(BENCH_ASSETS),--assets $(BENCH_ASSETS))
	$(VENV)/bin/python benchmarks/plan_memory.py
	$(VENV)/bin/python benchmarks/evaluation.py
	$(VENV)/bin/python benchmarks/loader.py
	$(VENV)/bin/python benchmarks/training.py flops

lint: $(STAMP)  ## ruff: format and rules, nothing is changed
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

clean:  ## remove out/, caches and the environment
	rm -rf out build dist .pytest_cache .ruff_cache *.egg-info $(VENV)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
