# `make run` and `make test` do all the set-up themselves. Programs are called by path: nothing to activate.
# The system's Python where it will do: pyenv builds its own without optimizations, which takes half as long again.
PY ?= $(shell for p in /usr/bin/python3 python3; do $$p -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' \
  2>/dev/null && echo $$p && exit; done; echo python3)
V := .venv
STAMP := $(V)/.installed
BIN := $(V)/bin
.DEFAULT_GOAL := help
# Modules are compiled once, below .venv, also where the environment forbids it (images do): every start and every
# test worker would compile all of them anew, a third of what the tests cost.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(V)/pycache
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help install run bench test suite coverage coverage-pure versions check fix format lint types imports migrations docs \
  guard house migration fuzz soak clean lock homeassistant

# What `make check` and CI run, in this order; each is a target of its own. `make coverage-pure` runs half of the suite once more,
# and is run after a change of the core or of the scheduling: with it CI takes longer than ten minutes.
CHECKS := format lint types imports house migrations docs suite guard

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml requirements.lock
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "csms needs Python 3.11 or newer; $(PY) is $$($(PY) -V 2>&1). Try: make PY=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PY) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "Python's venv module is missing. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "[1/3] creating $(V)"; $(PY) -m venv $(V); }
	@echo "[2/3] installing $$(grep -c '==' requirements.lock) locked packages (about 15 s)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps \
	  --only-binary :all: -r requirements.lock \
	  || { echo "The locked packages did not install (see above). Without wheels for this machine, set DATABASE_URL and MQTT_HOST and install the package with pip." >&2; exit 1; }
	@echo "[3/3] installing csms"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

install: $(STAMP)  ## build .venv only

run: $(STAMP)  ## start the demo: database, broker, central system, simulated chargers, events as they pass
	@$(BIN)/csms demo $(ARGS)

# Or all test workers would do it, at the same time.
$(V)/.compiled: $(STAMP)
	@echo "compiling all modules once (about 10 s)"
	@$(BIN)/python -m pytest --collect-only -q -n 0 >/dev/null && touch $@ || true  # what is wrong, the tests' run says

test: $(V)/.compiled  ## run the whole test suite (ARGS="-k name" to choose)
	@$(BIN)/python -m pytest $(ARGS)

# A test that fails and passes by itself is flaky: counted, and red from the third. CI refuses skips it does not know.
suite: $(V)/.compiled  ## the whole suite as CI runs it: flaky tests and skips are named and counted
	@$(BIN)/python -m tools.suite $(if $(CI),--ci) $(ARGS)

check: $(STAMP)  ## everything CI runs, as named steps with their times (CHECKS="lint types" to choose)
	@$(BIN)/python -m tools.check $(CHECKS)

# Which lines and branches the tests run, with a floor for each package (pyproject.toml). Measuring doubles what the suite
# costs; what the tests without servers cover takes half a minute.
coverage: $(V)/.compiled  ## what the whole suite covers, per package, with floors (minutes)
	@$(BIN)/python -m tools.coverage $(ARGS)

coverage-pure: $(V)/.compiled  ## what the tests without servers cover of the pure modules, with floors (half a minute)
	@CSMS_ADVERSARY_EXAMPLES=200 $(BIN)/python -m tools.coverage --pure $(ARGS)

# Each Python has an environment of its own, with the locked packages: 400 MB each.
versions: $(STAMP)  ## the suite with each Python and each Postgres found (PYTHONS="3.12 3.13" POSTGRES=DIR ARGS=tests/db)
	@$(BIN)/python -m tools.versions --pythons "$(PYTHONS)" --postgres "$(POSTGRES)" $(ARGS)

house: $(STAMP)  ## count what the house rules limit: shared names, words, log keys, long modules, import circles
	@$(BIN)/python -m tools.house

format: $(STAMP)
	@$(BIN)/ruff format --check .

lint: $(STAMP)
	@$(BIN)/ruff check .

types: $(STAMP)
	@$(BIN)/mypy

imports: $(STAMP)
	@$(BIN)/lint-imports

migrations: $(STAMP)
	@$(BIN)/python -m tests.migration_check

# What a message costs, as a ratio to another central system measured in the same minute: half a minute.
guard: $(STAMP)
	@if [ "$$(uname)" = Linux ]; then $(BIN)/python -m benchmarks.guard; else echo "the guard runs on Linux only"; fi

docs: $(STAMP)  ## build the documentation into build/docs and check its links
	@$(BIN)/sphinx-build -q -W --keep-going -E -b html -c docs . build/docs

fix: $(STAMP)  ## format and repair what can be repaired
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(STAMP)  ## measure side by side with others and write docs/benchmarks.md (ARGS=--quick: a minute, table only)
	@$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(STAMP)  ## hours of garbage and odd behaviour instead of seconds (CSMS_FUZZ_EXAMPLES, CSMS_MACHINE_EXAMPLES)
	@CSMS_FUZZ_EXAMPLES=$${CSMS_FUZZ_EXAMPLES:-20000} CSMS_MACHINE_EXAMPLES=$${CSMS_MACHINE_EXAMPLES:-300} \
	  CSMS_OPENAPI_EXAMPLES=$${CSMS_OPENAPI_EXAMPLES:-300} \
	  $(BIN)/python -m pytest -n 2 --timeout 86400 tests/api/test_openapi_fuzz.py tests/e2e/test_fuzz.py tests/e2e/test_machine.py tests/bridges/ev_meter

soak: $(STAMP)  ## kill the node, the broker, Postgres and the disk for minutes (SOAK_KILLS=200, SOAK_SECONDS, SOAK_CHARGERS)
	@$(BIN)/python -m pytest tests/soak/test_soak.py -n 0 -m soak -s -q

# Home Assistant pins a hundred packages and wants a newer Python: an environment of its own, with its own constraints. The
# packages beside it are what its MQTT integration imports. Its schemas need only 3.13, whatever patch the package asks for.
HA_PY ?= python3.13
HA_VERSION ?= 2026.2.3
HA := .venv-homeassistant
HA_STAMP := $(HA)/.installed-$(HA_VERSION)
HA_BESIDE := paho-mqtt

$(HA_STAMP):
	@$(HA_PY) -c 'import sys; sys.exit(sys.version_info < (3, 13))' \
	  || { echo "Home Assistant needs Python 3.13 or newer. Try: make homeassistant HA_PY=/path/to/python3.13" >&2; exit 1; }
	@rm -rf $(HA) && $(HA_PY) -m venv $(HA)
	@echo "installing homeassistant $(HA_VERSION) into $(HA) (minutes)"
	@$(HA)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --ignore-requires-python \
	  homeassistant==$(HA_VERSION)
	@$(HA)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --prefer-binary \
	  -c $(HA)/lib/python3*/site-packages/homeassistant/package_constraints.txt homeassistant==$(HA_VERSION) $(HA_BESIDE)
	@touch $@

homeassistant: $(STAMP) $(HA_STAMP)  ## have Home Assistant's own schemas check our discovery (500 MB on disk; HA_PY=python3.13)
	@$(BIN)/python -m tests.homeassistant.payloads >$(HA)/payloads.json
	@$(HA)/bin/python tests/homeassistant/judge.py $(HA)/payloads.json

migration: $(STAMP)  ## write a new migration: make migration m="what" (DATABASE_URL: a database at head)
	@$(BIN)/alembic revision --autogenerate -m "$(m)"

lock:  ## write requirements.lock anew (maintainers; needs uv)
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --all-extras --no-header --no-annotate -o requirements.lock pyproject.toml

clean:  ## remove .venv and caches
	rm -rf $(V) $(HA) .venv-versions build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
