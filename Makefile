# `make` lists what there is to run; every target installs what it needs first.
.DEFAULT_GOAL := help
.PHONY: help setup run demo test check check-oldest audit fuzz format bench chaos soak screenshots migration lock

PYTHON = $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN = .venv/bin
FLASK = $(BIN)/flask --app wsgi
# What only describes the application connects to nothing.
UNCONNECTED = DATABASE_URL=postgresql://unused REDIS_URL=redis://unused
# What speaks to PostgreSQL and Redis, without what only looks at schemas and pages.
OLDEST = tests/migrations tests/models tests/workers tests/realtime tests/api
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
  --custom-compile-command "make lock" pyproject.toml
SOURCES = api workers realtime models migrations celeryconfig.py wsgi.py

help:
	@awk '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { split($$0, part, /:.*## /); printf "  make %-12s %s\n", part[1], part[2] }' Makefile

##@ Use

setup: .venv/.installed ## install requirements-dev.txt into .venv (the others do it when needed)

.venv/.installed: requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed"; exit 1; }
	@echo "Installing into .venv; the first time takes a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

run: setup ## start everything on this machine (PORT=8000, AGENTHQ_DATA=var)
	@exec $(BIN)/python -m api.local

demo: setup ## start, replay a trace through the API (TRACE=path or a small one), stop
	@exec $(BIN)/python -m api.local --demo $(TRACE)

##@ Develop

test: setup ## run the tests, or those of T=path
	@$(BIN)/pytest -n auto --dist loadfile $(T)

check: setup ## all that CI runs: style, types, layers, generated docs, tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(SOURCES)
	$(UNCONNECTED) $(FLASK) openapi --check
	$(UNCONNECTED) $(FLASK) permissions-doc --check
	$(UNCONNECTED) $(FLASK) events-doc --check
	$(UNCONNECTED) $(FLASK) translations --check
	$(BIN)/pytest -n auto --dist loadfile

check-oldest: setup ## the tests that meet servers, on Debian's PostgreSQL 15 and Redis 7
	SERVERS=oldest $(BIN)/pytest -n auto --dist loadfile $(OLDEST)

format: setup ## format the code and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format

bench: setup ## run the benchmarks
	@for path in $$(grep -l '^if __name__' benchmarks/*.py); do \
	  echo "== $$path"; $(BIN)/python -m benchmarks.$$(basename $$path .py) || exit 1; done

screenshots: setup ## take the pictures of docs/console/ anew (needs Chromium)
	@$(BIN)/pytest -q -n 2 tests/console/pictures.py

fuzz: setup ## throw what nobody expects at the API and the sockets (CASES=20 SECONDS=60 SEED=1)
	@FUZZ=1 CASES=$(CASES) SECONDS=$(SECONDS) SEED=$(SEED) $(BIN)/pytest -n auto --timeout 0 $(or $(T),tests/fuzz)

chaos: setup ## kill what the product consists of under load, then compare (KILLS=300)
	@$(BIN)/python -m tests.faults.chaos --kills $(or $(KILLS),300)

soak: setup ## a mixed load with 2,000 sockets and faults for long, then compare (MINUTES=10)
	@$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),10)

##@ Maintain

audit: setup ## look up known vulnerabilities of what requirements.txt pins (asks pypi.org)
	@$(BIN)/pip-audit --requirement requirements.txt --disable-pip --no-deps --strict --progress-spinner off || { \
	  echo "error: something was found (a table above lists it), or the audit did not happen: 'could not be audited' and"; \
	  echo "connection errors mean that the advisories were not reachable, and then nothing is known"; exit 1; } >&2

migration: setup ## write a revision (M="what changes"; DATABASE_URL set: from the models)
	$(if $(DATABASE_URL),,$(UNCONNECTED)) $(FLASK) db revision $(if $(DATABASE_URL),--autogenerate) -m "$(M)"

lock: setup ## pin what pyproject.toml needs in requirements.txt and requirements-dev.txt
	$(COMPILE) --output-file requirements.txt
	$(COMPILE) --extra dev --output-file requirements-dev.txt
