# The two commands: `make train` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SUITE ?= loss
STAMP := $(VENV)/.effrec-installed

.PHONY: train test test-all lint types setup gpu-check gpu-bench tables clean

setup: $(STAMP)

# Rebuilt when what is to be installed changes; otherwise nothing is done.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("effrec needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

train: $(STAMP)
	$(BIN)/effrec train

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest -q

test-all: lint types
	$(BIN)/python -m pytest -q -m 'not gpu'

# On a machine with a GPU, with that machine's own python and torch: no virtual environment, no network.
# Most of the time goes into compiling kernels, so several processes share it where pytest-xdist is there.
gpu-check:
	PYTHONPATH=.:kernels $(PYTHON) -m pytest -q -m gpu tests/gpu tests/kernels \
	  $$($(PYTHON) -c 'import importlib.util as i, os; print(f"-n {min(8, os.cpu_count())}" * bool(i.find_spec("xdist")))')

gpu-bench:
	PYTHONPATH=.:kernels $(PYTHON) -m effrec_cli bench $(SUITE)

tables: $(STAMP)
	$(BIN)/effrec bench --tables

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
