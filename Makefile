# Curbside: `make run` starts it, `make test` tries everything. Needs Python 3.11+ and make; the rest is installed here.

MAKEFLAGS += --no-builtin-rules --no-print-directory
SHELL := /bin/sh
BIN := .venv/bin
STAMPS := .venv/.curbside
NODE_MODULES := web/node_modules/.curbside
WEB_SOURCES := $(shell find web/src web/public web/index.html web/patches web/scripts 2>/dev/null)
WEB_CONFIG := web/vite.config.ts web/tsconfig.json

.DEFAULT_GOAL := help
.PHONY: help run test chaos check fmt bench setup setup-test web clean lock chromium proxies
.DELETE_ON_ERROR:

help: ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

run: setup web ## set up what is missing, then start Curbside with demo accounts (ARGS="--port 9000" for options)
	@$(BIN)/curbside demo $(ARGS)

test: setup-test web chromium proxies ## set up what is missing, then run every gate and the whole test suite
	@$(BIN)/python tools/run_tests.py $(ARGS)

chaos: setup-test ## kill, cut, fill, slow and step the clock under load, 20 times each (ARGS="-k clock" for some)
	@CHAOS_KILLS=$${CHAOS_KILLS:-20} $(BIN)/python -m pytest tests/chaos $(ARGS)

check: setup-test $(NODE_MODULES) ## format, lint, types, import rules, sizes, docs, unit tests: about a minute
	@$(BIN)/python tools/run_tests.py --check $(ARGS)

fmt: setup-test ## format the Python code and sort its imports
	@$(BIN)/ruff check --quiet --fix-only src tests tools bench
	@$(BIN)/ruff format src tests tools bench

bench: setup-test ## measure against the budgets (bench/)
	@$(BIN)/python -m compileall -q src
	@$(BIN)/python -m bench $(ARGS)

setup: $(STAMPS)/run ## make .venv and install what running needs

setup-test: $(STAMPS)/test

web: web/dist/index.html ## build the web client if its sources changed

clean: ## remove everything that was made here: .venv, packages, builds, caches (never data)
	@rm -rf .venv web/node_modules web/dist build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

lock: $(STAMPS)/venv ## resolve the Python packages anew and write the hash locks
	@tools/lock.sh

chromium proxies:
	@tools/setup.sh $@

$(STAMPS)/venv: requirements/bootstrap.txt
	@echo "set-up: Python environment"
	@tools/setup.sh venv
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: requirements/run.txt pyproject.toml | $(STAMPS)/venv
	@echo "set-up: Python packages"
	@tools/setup.sh packages run
	@touch $@

$(STAMPS)/test: requirements/test.txt $(STAMPS)/run
	@echo "set-up: Python packages for tests"
	@tools/setup.sh packages test
	@touch $@

$(NODE_MODULES): web/package-lock.json web/package.json web/.npmrc | $(STAMPS)/run
	@echo "set-up: web packages"
	@tools/setup.sh node_modules
	@touch $@

web/dist/index.html: $(NODE_MODULES) $(WEB_SOURCES) $(WEB_CONFIG)
	@echo "set-up: web client"
	@echo "  building web/dist"
	@tools/npm run --silent build
	@touch $@
