# Needs python3 (3.11 or newer) with venv, and make; everything else is installed into .venv.
PYTHON ?= python3
RUN := .venv/bin
# Every episode's numbers in the README come from this preset.
PRESET ?= point-circle
SEED ?= 0

.PHONY: venv train test test-slow lint bench docs wheel lock lock-docs

venv: .venv/ready

.venv/ready: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.lock
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

train: venv  ## meta-train Point-Circle, adapt it to unseen tasks, print the table, write the report
	$(RUN)/metacpo train $(PRESET) --seed $(SEED)

# Two workers: most of a test's time is compilation, which one core does. Whole files, for their fixtures' sake.
test: venv lint  ## lint, types and the fast tests
	$(RUN)/python -m pytest --numprocesses 2 --dist loadfile --durations 15

test-slow: venv  ## learning runs and long checks
	$(RUN)/python -m pytest -m slow

lint: venv
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/pyright --pythonpath $(RUN)/python

bench: venv  ## speed against bare MuJoCo, share of learning, compilations
	$(RUN)/python benchmarks/speed.py

docs: .venv-docs/ready  ## the documentation as a site, strict, into site/; metrics.md is checked by the tests
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

# Apart from .venv: nothing else needs these packages. The package is read, not imported.
.venv-docs/ready: requirements-docs.lock
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-docs.lock
	touch $@

wheel: venv  ## the wheel's contents; its tests with the newest and with the lowest dependencies allowed
	$(RUN)/python tools/wheel.py

lock:  ## pin the newest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear .venv
	$(RUN)/python -m pip install --quiet --upgrade pip
	$(RUN)/python -m pip install --quiet --group dev --editable . hatchling editables
	echo "# The development environment: what 'make venv' installs. Made by 'make lock'." > requirements-dev.lock
	$(RUN)/python -m pip freeze --exclude-editable >> requirements-dev.lock

lock-docs:  ## the same for the site's tools
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade pip
	.venv-docs/bin/python -m pip install --quiet --group docs
	echo "# What 'make docs' installs. Made by 'make lock-docs'." > requirements-docs.lock
	.venv-docs/bin/python -m pip freeze >> requirements-docs.lock
