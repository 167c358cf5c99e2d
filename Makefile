# make run       install what running needs, then raw documents -> report.html on the shipped sample (minutes on a CPU)
# make quick     install, then linters, types, the import contract and the unit tests: before every commit
# make test      install, then linters, types, the import contract and all tests
# make coverage  install, then all tests, and the lines of each package that they run
# make cluster-test   as root: the tests that need two hosts or a Slurm, with Debian's packages for them
# make clean     remove caches and build output, never what was trained: runs/ stays
.PHONY: install install-run run lint unit quick test coverage clean cluster-packages cluster-test
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -rs
# The first of these that is a Python 3.11 to 3.14; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo $$p && break; done)

install: $(VENV)/installed-dev

install-run: $(VENV)/installed-run

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.14 found. Hint: install one, or make PYTHON=/path/to/python3.12"; exit 2; }
	@echo "install: a virtual environment of $$($(PYTHON) --version) in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed-run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "install: the packages that twofold needs, at the versions of constraints.txt (minutes)"
	@$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed-run
	@echo "install: the packages that its tests and linters need (a minute)"
	@$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: install-run
	$(BIN)/twofold run configs/smoke.yaml

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: install
	HYPOTHESIS_PROFILE=quick $(PYTEST) -m "not (slow or e2e or cluster or slurm or ray or corpus or fuzz)"

quick: lint unit

test: lint
	$(PYTEST)

coverage: install
	$(PYTEST) --cov --cov-report=term:skip-covered

# Two hosts and a Slurm on this machine, as root, with Debian's packages.
cluster-packages:
	apt-get install --yes --quiet iproute2 openssh-server pdsh slurm-wlm munge

cluster-test: install cluster-packages
	$(BIN)/python -m pytest -m cluster -rs

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './runs/*' -prune -exec rm -rf {} +
