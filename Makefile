# The folders at the root are the packages bilevelrl.<folder>; see pyproject.toml.
PYTHON ?= python3
PACKAGES := reference estimators tasks verification benchmarks
LINKS := $(PACKAGES:%=build/typecheck/bilevelrl/%)

.PHONY: help check architecture typecheck lint format test doctest docs archive clean

help:
	@echo "targets: check lint typecheck architecture test doctest docs archive format clean   (PYTHON=$(PYTHON))"

# mypy finds bilevelrl.<folder> through a tree of links, so that nothing needs to be reinstalled.
build/typecheck/bilevelrl/%:
	mkdir -p $(@D)
	ln -sfn ../../../$* $@

# Before each commit: seconds, but for the first time, when mypy has no cache yet.
check: lint architecture typecheck

architecture:
	$(PYTHON) -m pytest -q tests/architecture

typecheck: $(LINKS)
	$(PYTHON) -m mypy $(PACKAGES:%=-p bilevelrl.%)

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

test:
	$(PYTHON) -m pytest

doctest:
	$(PYTHON) -m pytest tests/docs/test_docstrings.py -q

docs:
	rm -rf docs/api  # a name that has gone would be a warning
	$(PYTHON) docs/make_names.py
	$(PYTHON) -m sphinx -W --keep-going -b html docs build/docs

archive:
	$(PYTHON) -m bilevelrl.benchmarks.reference_problems.archive --output build

clean:
	rm -rf build/typecheck build/docs .mypy_cache .ruff_cache .pytest_cache
