# make with no argument lists the targets.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# mkdocs-material prints an advertisement for its successor otherwise.
export NO_MKDOCS_2_WARNING := 1
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEPENDENCIES := pyproject.toml constraints.txt
QUESTION := How does agentflow keep a chain from overspending?

.DEFAULT_GOAL := list
.PHONY: list setup run test check format docs bench peers clean

list:
	@echo 'make setup   create $(VENV) with everything that development needs'
	@echo 'make run     install what the main job needs, and run it on this project'"'"'s own documents'
	@echo 'make test    run the whole test suite'
	@echo 'make check   format, lint, types, floors, documentation'
	@echo 'make format  rewrite the code in the project'"'"'s format'
	@echo 'make docs    build the documentation into site/'
	@echo 'make bench   run the benchmarks'
	@echo 'make peers   install what benchmarks compare with and this environment cannot have, in one of its own'
	@echo 'make clean   remove everything that these targets made'

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo 'No Python 3.11 or later found. Install one, or name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo '$(PYTHON) is older than Python 3.11, or does not run. Name another: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo '$(PYTHON) cannot create $(VENV); on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }

$(VENV)/run.stamp: $(DEPENDENCIES) | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/dev.stamp: $(DEPENDENCIES) | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/run.stamp

setup: $(VENV)/dev.stamp

run: $(VENV)/run.stamp
	@$(BIN)/agentflow research "$(QUESTION)" docs README.md

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 2

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --level error
	$(BIN)/basedpyright --level error --project tests
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet --site-dir site

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/dev.stamp
	$(BIN)/mkdocs build --strict --site-dir site

bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.research
	$(BIN)/python -m benchmarks.answers
	$(BIN)/python -m benchmarks.shelf
	$(BIN)/python -m benchmarks.energy
	$(BIN)/python -m benchmarks.meter
	$(BIN)/python -m benchmarks.jobs --quick
	$(BIN)/python -m benchmarks.hedging
	$(BIN)/python -m benchmarks.lanes
	$(BIN)/python -m benchmarks.call
	$(BIN)/python -m benchmarks.cascade

$(VENV)/peers.stamp: benchmarks/peers/requirements.txt | $(BIN)/python
	$(BIN)/python -m venv --clear $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

peers: $(VENV)/peers.stamp

clean:
	rm -rf $(VENV) site build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache .agentflow
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
