# make run    install, then raw documents -> report.html on the shipped sample (minutes on a CPU)
# make test   install, then linters, types, the import contract and all tests
# make cluster-test   as root: the tests that need two hosts or a Slurm, with Debian's packages for them
.PHONY: install run test lint clean cluster-packages cluster-test
VENV := .venv
BIN := $(VENV)/bin
# The first of these that is a Python 3.11 or 3.12; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found. Hint: install one, or make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: install
	$(BIN)/twofold run configs/smoke.yaml

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -rs

# Two hosts and a Slurm on this machine, as root, with Debian's packages.
cluster-packages:
	apt-get install --yes --quiet iproute2 openssh-server pdsh slurm-wlm munge

cluster-test: install cluster-packages
	$(BIN)/python -m pytest -m cluster -rs

clean:
	rm -rf runs
