# make ablation   the embedded study on this machine's CPU: table, records, page
# make test       lint, types, unit tests, and the embedded study as a gate
# make speed      is HEAD slower than where it left BASE (default: origin/main)?
# make quality    is it worse? Minutes, no goldens
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
BASE ?= origin/main

# processes of a study import everything anew: that takes three times as long without bytecode
export PYTHONDONTWRITEBYTECODE :=

.PHONY: environment ablation test lint unit gate gate-gpu speed quality noise noise-gpu lock clean

environment: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

ablation: environment
	mkdir -p out
	$(BIN)/pytest tests/ablation --quiet --benchmark-json out/benchmark.json --junitxml out/junit.xml

test: lint unit gate

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: environment
	$(BIN)/pytest tests --ignore tests/ablation --quiet --numprocesses auto --dist worksteal

# the gates name all they run: PYTEST_ADDOPTS could narrow it, and gains beyond tolerance are to be approved
gate: environment
	mkdir -p out
	PYTEST_ADDOPTS= $(BIN)/pytest tests/ablation --suite smoke --require-approved --quiet \
		--benchmark-json out/benchmark.json --junitxml out/junit.xml

# the GPU runner's half: a test that was skipped there is a failure
gate-gpu: environment
	mkdir -p out
	PYTEST_ADDOPTS= $(BIN)/pytest tests -m gpu --require-gpu --suite scan --require-approved --quiet \
		--benchmark-json out/benchmark.json --junitxml out/junit.xml

# both in turns on this machine, which needs no goldens; fails if HEAD is slower
speed: environment
	base=$$(git merge-base $(BASE) HEAD) && $(BIN)/evalsuite compare $$base HEAD --only time

# the same cases and seeds with both; fails if HEAD is worse
quality: environment
	base=$$(git merge-base $(BASE) HEAD) && $(BIN)/evalsuite compare $$base HEAD --only quality

# the optimised arms with four more seeds, for `evalsuite approve --seeds 1 2 3 4`
noise: environment
	$(BIN)/evalsuite noise --suite smoke --seeds 1 2 3 4

noise-gpu: environment
	$(BIN)/evalsuite noise --suite scan --seeds 1 2 3 4 --device cuda

# rebuild the lock after a change of dependencies; it names no registry
lock: environment
	$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache
