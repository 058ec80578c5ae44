# Everything runs in .venv, which `make setup` makes; no other Python environment is used, whichever is active.

PYTHON ?= python3
PORT ?= 30000
MODEL ?= outputs/demo.fused

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH UV_PYTHON UV_SYSTEM_PYTHON
# Else every process that imports SGLang compiles it again, which takes as long as the import itself.
unexport PYTHONDONTWRITEBYTECODE
# Else pyright asks the network for its latest version.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help setup demo serve docs check test test-all lint types tests tests-unit tests-all format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED) ## make .venv with the project in it; PYTHON=python3.12 chooses the Python

# The small voice, or tiny random weights while a checkout has none.
SMALL_VOICE := $(wildcard recipes/small_voice/checkpoint/*/*)
OWN_MODEL := $(filter outputs/demo.fused,$(MODEL))

outputs/demo.fused: $(SMALL_VOICE) | $(INSTALLED)
	@$(BIN)/python -m sglang_moss.clients.small_voice $@

demo: $(INSTALLED) ## fuse the small voice, serve it, speak, write outputs/demo.wav
	@$(BIN)/python -m sglang_moss.clients.demo

serve: $(INSTALLED) $(OWN_MODEL) ## serve a fused checkpoint: MODEL=path (the demo's) PORT=30000
	@exec $(BIN)/moss-ttsd serve --model-path "$(MODEL)" --port "$(PORT)"

docs: $(INSTALLED) ## build the documentation into outputs/site, links checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory outputs/site 8000"

# Types take one core for a while, tests another.
AT_ONCE = $(MAKE) --no-print-directory --jobs=2

check: lint ## lint, types, unit tests
	@$(AT_ONCE) types tests-unit

test: lint ## lint, types, every test but the slow ones
	@$(AT_ONCE) types tests

test-all: lint ## lint, types, every test
	@$(AT_ONCE) types tests-all

tests-unit: $(INSTALLED)
	@$(BIN)/python -m pytest -m "not server and not wide and not slow" --numprocesses 2 --dist worksteal

# Those that start a server follow each other on one worker: two servers at once are slower than one after the other.
ON_TWO := --numprocesses 2 --dist loadgroup --no-loadscope-reorder

tests: $(INSTALLED)
	@$(BIN)/python -m pytest -m "not slow" $(ON_TWO)

tests-all: $(INSTALLED)
	@$(BIN)/python -m pytest $(ON_TWO)

lint: $(INSTALLED) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(INSTALLED) ## pyright
	@$(BIN)/pyright --pythonpath $(BIN)/python

format: $(INSTALLED) ## ruff: mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove .venv, builds, caches and the demo's output
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis outputs/demo.*

# uv installs; where there is none it comes into .venv first, by pip, which a bare Debian has in one of two forms.
$(INSTALLED): pyproject.toml constraints.txt overrides.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "error: Python 3.11, 3.12 or 3.13 is needed, found: $$("$(PYTHON)" --version 2>&1);" \
			"name one with PYTHON=python3.12" >&2; exit 1; }
	@[[ -x $(BIN)/python ]] || "$(PYTHON)" -m venv --without-pip $(VENV)
	@if uv --version > /dev/null 2>&1; then uv=uv; else \
		uv=$(BIN)/uv; \
		[[ -x $$uv ]] || "$(PYTHON)" -m pip --python $(BIN)/python install --quiet uv \
			|| { $(BIN)/python -m ensurepip && $(BIN)/python -m pip install --quiet uv; } \
			|| { echo "error: install uv, or pip for $(PYTHON) (Debian: apt-get install python3-pip)" >&2; exit 1; }; \
	fi; \
	$$uv pip install --python $(BIN)/python --constraint constraints.txt --override overrides.txt --editable '.[dev]'
	@touch $@
