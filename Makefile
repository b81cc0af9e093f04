# One command does everything on a fresh machine: `make demo`, `make test` and `make check` build
# the environment first when it is missing, half-made or out of date.

PYTHON ?= python3
WORKERS ?= 2
TORCH := torch==2.13.0

BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest
BENCH_PYTHON ?= $(BIN)/python

.PHONY: setup demo test test-full check bench clean

setup: $(READY)

# Without the stamp an environment is half-made and is made anew; with an old stamp it is updated.
# The stamp is set last, so the next call sees an interruption.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or newer is needed: make PYTHON=python3.12 setup' >&2; exit 1; }
	@echo 'reversal: preparing .venv (once, a few minutes)' >&2
	@test -e $(READY) && $(BIN)/python -c '' || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	@$(PIP) install $(TORCH)
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY)
	@$(BIN)/reversal demo

test: $(READY)
	@$(PYTEST) -n $(WORKERS) --dist worksteal -q -m 'not slow'

test-full: $(READY)
	@$(PYTEST) -n $(WORKERS) --dist worksteal -q

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(PYTEST) -q tests/test_architecture.py

# Peers that are not installed are left out by the scripts: `pip install -e '.[bench]'` in an
# environment of its own, then `make bench BENCH_PYTHON=path/to/python`.
bench: $(READY)
	@set -e; for script in $(sort $(wildcard benchmarks/*.py)); do \
		case $$script in benchmarks/_*) continue ;; esac; \
		echo "== $$script"; $(BENCH_PYTHON) $$script; done

clean:
	@rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	@find src tests examples benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
