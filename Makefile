# Everything here starts from python3 >= 3.11, make and the package registry. `make setup` is called by the others.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
unexport PYTHONDONTWRITEBYTECODE  # where a shell has it, each of the hundreds of processes would compile the package anew
STAMP := $(VENV)/.made

.PHONY: setup demo scenarios test check bench soak outage loadtest shapes faults lock vectors clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml device-sim/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fleetgate needs Python 3.11 or newer: call make PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--editable . --editable device-sim
	@touch $@

# The whole gate on this machine, with a simulated fleet and attackers; ARGS="--vehicles 100 --seconds 20 --report r.json"
demo: setup
	@$(BIN)/fleetgate demo $(ARGS)

# Every test that CI runs. Debian's mosquitto_pub, curl, HAProxy and nginx are peers in a few of them, which skip with a
# reason without; as root on Debian, `tools` installs them. Those of the first two lines run in several processes, a
# file in one: what its tests share is started once.
SPREAD := --numprocesses 3 --dist loadfile
test: setup tools check
	$(BIN)/python -m pytest tests/unit tests/property $(SPREAD) --durations=5 $(ARGS)
	$(BIN)/python -m pytest tests/integration $(SPREAD) --durations=5 $(ARGS)
	$(BIN)/python -m pytest tests/e2e --durations=5 $(ARGS)
	$(BIN)/python -m pytest tests/faults tests/shapes --quick --numprocesses 2 --durations=5 $(ARGS)

.PHONY: tools
tools:
	@.ci/tools

# Formatter, linter, types, layering.
check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_layering.py

# The benchmarks; ARGS="--only judge --json out.json"
bench: setup
	$(BIN)/python -m loadtest.bench.run $(ARGS)

# Every scenario of the simulator, one after another (50 minutes), and the page of their figures; ONLY="clone slow-probe"
# runs some, ARGS="--seed 7" another fleet. A gate that was wrong is told, and in the page.
scenarios: setup
	@mkdir -p scores
	@for name in $(or $(ONLY),$$($(BIN)/fleetsim scenarios | cut -d' ' -f1)); do \
		$(BIN)/fleetgate demo --scenario $$name --report scores/$$name.json $(ARGS) || true; \
	done
	@$(BIN)/fleetsim scenario-page scores/*.json > docs/reference/scenarios.md

# Ten minutes of steady load, judged for growth; ARGS="--minutes 60"
soak: setup
	$(BIN)/python -m loadtest.bench.soak $(ARGS)

# Ten minutes without ClickHouse at 5,000 events/s, and the drain behind it; ARGS="--minutes 1"
outage: setup
	$(BIN)/python -m loadtest.bench.outage $(ARGS)

# A fleet of locust users against a gate, judged by thresholds; ARGS="--shape rush-hour --users 500 --minutes 3"
loadtest: setup
	@$(BIN)/python -m loadtest.run $(ARGS)

# Each shape of the load test against a sound gate, and against one that is broken meanwhile; ARGS="-k herd"
shapes: setup
	@$(BIN)/python -m pytest -q --tb=short tests/shapes $(ARGS)

# The fault suite: every fault under load, two at a time, and the oracle; ARGS="--only NAME --seed N", ARGS="--quick"
faults: setup
	@$(BIN)/python -m pytest -q --tb=short --numprocesses 2 tests/faults $(ARGS)

# Pins every dependency with its hashes, and those of the image; no download host stands in the files.
lock: setup
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate \
		--no-header --python-version 3.11 --group dev --group loadtest --group device-sim/pyproject.toml:plots \
		--output-file requirements.lock pyproject.toml device-sim/pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate \
		--no-header --python-version 3.11 --group build --constraint requirements.lock \
		--output-file deploy/requirements.lock pyproject.toml

# The wire format's test vectors, from the simulator's own encoder
vectors: setup
	$(BIN)/fleetsim vectors schemas/vectors

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis runs/.gate-*
