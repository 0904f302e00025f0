PYTHON ?= python3
VENV := .venv
DEMO := .venv-demo
# the exact CPU build keeps the install small; any torch >= 2.6 works
TORCH ?= torch==2.13.0

.PHONY: demo test check lint types format dev clean

demo: $(DEMO)/ready  ## install the light half, enlarge the sample, show the result
	$(DEMO)/bin/python scripts/demo.py

test: $(VENV)/ready  ## install what tests need and run them all
	$(VENV)/bin/python -m pytest

check: lint types test  ## what CI runs

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/ready
	$(VENV)/bin/mypy

format: $(VENV)/ready
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

dev: $(VENV)/ready

$(DEMO)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet -e .
	touch $@

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(TORCH)
	$(VENV)/bin/pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) demo runs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
