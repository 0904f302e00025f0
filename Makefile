PYTHON ?= python3
VENV := .venv
DEMO := .venv-demo
NATIVE := native/pyproject.toml native/CMakeLists.txt $(wildcard native/src/*.?pp native/src/*.h native/python/*.?pp native/python/*/*.py)
# any torch >= 2.6 works; on Linux the one of PyPI brings CUDA, and this does not:
#   make TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu' test
TORCH ?= torch==2.13.0

# the kernel is an extra: without a compiler everything runs on OpenVINO
define build_native
	@if command -v $${CXX:-c++} >/dev/null; then \
	  echo "building the native kernel"; \
	  if $(1)/bin/pip install --quiet ./native; then touch $@; \
	  else $(1)/bin/pip uninstall --quiet --yes dsclora-native; echo "it could not be built: going on without it"; fi; \
	else echo "no C++ compiler: going on without the native kernel"; fi
endef

.PHONY: demo test quick check lint types format docs dev clean

demo: $(DEMO)/native  ## install the light half, enlarge the sample, show the result
	$(DEMO)/bin/python scripts/demo.py

test: $(VENV)/native  ## install what tests need and run them all
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -rs  # a test computes on one core; what is skipped is named

quick: $(VENV)/native  ## tests that take less than a minute in all
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -rs -m "not slow"

check: lint types test  ## what CI runs

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/ready
	$(VENV)/bin/mypy

format: $(VENV)/ready
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

docs: $(VENV)/ready  ## build the documentation in build/site
	$(VENV)/bin/python scripts/site.py

dev: $(VENV)/native

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
	$(VENV)/bin/pip install --quiet --no-deps spandrel  # it asks for torchvision, which tests do without
	touch $@

$(DEMO)/native: $(DEMO)/ready $(NATIVE)
	$(call build_native,$(DEMO))

$(VENV)/native: $(VENV)/ready $(NATIVE)
	$(call build_native,$(VENV))

clean:
	rm -rf $(VENV) $(DEMO) demo runs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
