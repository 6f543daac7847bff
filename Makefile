# Every target sets up what it needs; `make help` explains them.
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
export OMP_NUM_THREADS ?= 2
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full test-peers lint check bench bench-check jvm proto clean

help: ## explain the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.python-ready: pyproject.toml constraints.txt tools/setup.sh
	@bash tools/setup.sh python

.venv/.system-ready: .venv/.python-ready
	@bash tools/setup.sh system

setup: .venv/.system-ready ## make .venv with everything the tests need; R, Java and Maven by apt
	@bash tools/setup.sh bindings

demo: .venv/.python-ready ## the main job on real credit data: train, convert, verify, save, chain, score (no R, no JVM)
	@$(PY) examples/credit/demo.py

lint: .venv/.python-ready ## format, lint and types, without running anything
	@$(PY) -m ruff format --check src tests benchmarks examples
	@$(PY) -m ruff check src tests benchmarks examples
	@$(PY) -m mypy

check: lint ## lint, import rules, docstrings against signatures, and every example of README and docstrings
	@$(PYTEST) -q tests/test_layers.py tests/test_docstrings.py

test: setup lint ## what CI runs: everything but the long sweeps and foreign environments
	@$(PYTEST) -q -n 2 --dist loadfile -m "not full and not peers" --durations 25 $(PYTEST_ARGS)
	@bash tools/setup.sh test-bindings

test-full: setup ## the long sweeps, with the numbers the documentation quotes
	@$(PYTEST) -q -m "not peers" $(PYTEST_ARGS)

test-peers: setup ## tests that need virtual environments of their own
	@$(PYTEST) -q -m peers $(PYTEST_ARGS)

bench: .venv/.python-ready ## all benchmarks: ratios against references in one run
	@$(PY) benchmarks/run.py

bench-check: .venv/.python-ready ## a few minutes: fails when a ratio breaks its bar (SUITES="executor/record …" for some)
	@$(PY) benchmarks/run.py --check $(SUITES)

jvm: .venv/.system-ready ## build the jar that the wheel ships
	@bash jvm-bindings/build.sh

proto: .venv/.python-ready ## generate the protobuf code from proto/
	@$(PY) proto/generate.py

clean: ## remove what was built
	rm -rf .venv build dist jvm-bindings/*/target src/mlbridge/_jvm
