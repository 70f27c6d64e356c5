# Everything a developer needs; `make demo` and `make test` each work from a bare checkout.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := -e ./sdk/python -e ./bakery -e ./backend -e .
INFERLETS := text-completion chat echo agent

.PHONY: install install-dev demo test test-quick lint check schemas bench bench-quick gpu-check profile format clean inferlets

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml backend/pyproject.toml bakery/pyproject.toml sdk/python/pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Pie into $(VENV) (torch is the large part) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PACKAGES)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@echo "Installing what tests and checks need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

inferlets: $(INFERLETS:%=build/inferlets/%.wasm)

build/inferlets/%.wasm: $(VENV)/.installed sdk/wit/inferlet.wit sdk/inferlets/%/main.py sdk/inferlets/%/pie.toml $(wildcard sdk/python/inferlet/*.py)
	@mkdir -p $(@D)
	@$(BIN)/bakery build sdk/inferlets/$* -o $@

demo: install build/inferlets/text-completion.wasm
	@echo '$$ pie run build/inferlets/text-completion.wasm -- --prompt "What is Pie?" --temperature 0'
	@$(BIN)/pie run build/inferlets/text-completion.wasm -- --prompt "What is Pie?" --temperature 0

# Tests in as many processes as there are cores; more than four would want much memory.
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

test: install-dev
	@$(PYTEST)

test-quick: install-dev
	@$(PYTEST) -m "not slow"

lint: install-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint test

schemas: install-dev
	@$(BIN)/python -m pytest -q tests/grammar/test_schema_suite.py

# The peers' environments are made once; `bench-quick` leaves the peers out.
bench: install-dev
	@benchmarks/peers/setup.sh
	@$(BIN)/python -m benchmarks

bench-quick: install-dev
	@$(BIN)/python -m benchmarks --quick

# On a machine with a GPU, by its own python and torch: docs/gpu-check.md.
gpu-check:
	@PYTHON="$(PYTHON)" benchmarks/gpu/check.sh

# Flame graphs of the scheduler and of launches, in docs/benchmarks/profiles.
profile: install-dev
	@$(BIN)/python -m benchmarks.profiles

format: install-dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf build .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
