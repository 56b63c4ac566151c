# `make demo` and `make test` set up everything they need in .venv; see README.md.

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed
DATA ?= data

# Threads of torch and BLAS fight over the cores when tests run side by side.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test explore faults lint packages docs install reproduce reproduce-full record readme-figures clean

demo: $(STAMP)
	$(BIN)/python -m experiments.demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS)

# The same tests on networks that no run has seen.
explore: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --hypothesis-profile explore

# Real runs that are interrupted, ended, starved and killed at random moments: minutes.
faults: $(STAMP)
	$(BIN)/python -m experiments.faults

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Wheels and source distributions, tried in an environment without extras.
packages: $(STAMP)
	$(BIN)/python .ci/packages.py

# The documentation, in docs/_build/html; a warning is an error.
docs: $(STAMP)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

# The study at reduced sizes, from what is built in: minutes. Ctrl-C and run again to go on; what is finished is kept.
reproduce: $(STAMP)
	$(BIN)/python -m experiments.reproduce --jobs $(JOBS)
	$(BIN)/python -m figures
	$(BIN)/lipcompare report results/results.sqlite --out results/report

# The study at the paper's sizes and limits: hours. DATA=folder has the data sets; those that are not there are left out.
reproduce-full: $(STAMP)
	$(BIN)/python -m experiments.reproduce --full --jobs $(JOBS) --data-root $(DATA) --store results/full/results.sqlite
	$(BIN)/python -m figures --store results/full/results.sqlite --out results/full/figures
	$(BIN)/lipcompare report results/full/results.sqlite --out results/full/report

# docs/results, from what `make reproduce-full` (or STORE=file) has: rows, figures, tables and the page in words, with NOTE on it.
STORE ?= results/full/results.sqlite
record: $(STAMP)
	$(BIN)/python -m figures.record --store $(STORE) --note '$(NOTE)'

# The two figures of README.md, from the last `make reproduce`.
readme-figures:
	mkdir -p docs/figures
	cp results/figures/pareto.svg results/figures/tiny_width.svg docs/figures/

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt verifier/pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit("lipcompare needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d: run make PYTHON=python3.11 ..." % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]' --editable ./verifier
	@touch $@

clean:
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache
