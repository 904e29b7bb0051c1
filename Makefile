# The commands of the house; `make help` lists them. Needs make and Python 3.11 or later, nothing else; the commands
# of the stack (make up and what follows it) need Docker instead.
#
# Read by: people, .ci/run. Tested by: tests/unit/deploy/test_makefile.py and tests/integration/test_make_run.py.
# Works with GNU make 3.81 and with the BSD tools (both are what macOS has).
# A setting may come from the environment, from .env (see .env.example) or be given: make run PORT=9000

.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV_PYTHON := .venv/bin/python
PYTEST_ARGS ?=
BENCH_ARGS ?=
IMAGE ?= glasshouse
export PYTHON

.PHONY: help run install install-dev migrate test test-unit bench up down logs urls doctor e2e lint lint-format lint-code \
	lint-types lint-imports lint-migrations lint-locks lint-rules rules format lock image clean clean-env

help: ## List the commands.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: install ## Start the API, the worker, the payment provider and a viewer of traces and errors; Ctrl-C stops them.
	@exec $(VENV_PYTHON) -m deploy.local.run

install: ## Make .venv with what the service needs (run does it by itself).
	@sh deploy/local/install.sh run

install-dev: ## The same with what tests and checks need (test, lint and format do it by themselves).
	@sh deploy/local/install.sh dev

up: ## Start the whole stack in Docker: the service and every tool that looks at it; TLS=1, DEMO=1.
	@sh deploy/stack/up.sh

down: ## Stop the stack; what it has kept stays.
	@sh deploy/stack/run.sh down

urls: ## Print where everything in the stack is, and the login.
	@sh deploy/stack/urls.sh

logs: ## Follow the logs of the stack; SERVICE=app for those of one service.
	@sh deploy/stack/run.sh logs

doctor: ## Check every component of the stack end to end, and say what is wrong and what to do.
	@sh deploy/stack/run.sh doctor

e2e: install-dev ## Drive a customer's journey through the stack and find it in every tool.
	@sh deploy/stack/run.sh e2e

migrate: install ## Bring the database of DATABASE_URL (the local file by default) to the newest schema.
	@exec $(VENV_PYTHON) -m app migrate

# What was skipped and why is printed because of -ra in pyproject.toml.
test: install-dev ## Run all tests, with coverage; REQUIRE_TOOLS=1 turns a test skipped for a missing tool into a failure.
	@exec $(VENV_PYTHON) -m pytest -n logical --dist worksteal --cov=app $(PYTEST_ARGS)

test-unit: install-dev ## Run the unit tests only: no server is started and coverage is not asked for.
	@exec $(VENV_PYTHON) -m pytest -n logical tests/unit $(PYTEST_ARGS)

# More: .venv/bin/python -m bench --help
bench: install-dev ## Measure what the instrumentation costs, in 5 minutes; BENCH_ARGS="--quick --json FILE", BENCH_ARGS=scrapes
	@exec $(VENV_PYTHON) -m bench $(BENCH_ARGS)

lint: lint-format lint-code lint-types lint-imports lint-migrations lint-locks lint-rules ## Run all checks below; with make -k, do not stop at the first that fails.

lint-format: install-dev ## Is everything formatted? (make format does it)
	$(VENV_PYTHON) -m ruff format --check .

lint-code: install-dev ## Ruff's rules.
	$(VENV_PYTHON) -m ruff check .

lint-types: install-dev ## mypy, strict.
	$(VENV_PYTHON) -m mypy

lint-imports: install-dev ## Do imports run one way? (the contracts are in pyproject.toml)
	.venv/bin/lint-imports --no-logo

lint-migrations: install-dev ## Do the migrations lead to exactly the models?
	$(VENV_PYTHON) -m app check-migrations

lint-locks: install-dev ## Do the locks fit pyproject.toml, with hashes and without an index address?
	$(VENV_PYTHON) -m deploy.local.locks

lint-rules: install-dev ## Is what is generated from objectives and alerts up to date?
	$(VENV_PYTHON) -m monitoring.build --check

rules: install-dev ## Turn objectives and declared alerts into rules, their tests and configuration.
	$(VENV_PYTHON) -m monitoring.build

format: install-dev ## Format the code and repair what ruff can repair.
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

lock: ## Resolve pyproject.toml into the locks, keeping the versions that still fit; UPGRADE=1 takes the newest.
	@sh deploy/local/lock.sh

image: ## Build the container image: make image IMAGE=registry.example/glasshouse:1.2.3
	docker build --file deploy/docker/Dockerfile --tag $(IMAGE) \
		--build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
		--build-arg GIT_COMMIT="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" .

clean: ## Remove what running and testing left behind, local databases included; asks before the stack's. FORCE=1
	@sh deploy/stack/clean.sh
	rm -rf var .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov
	find app bench deploy migrations sandbox tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-env: ## Remove .venv (and that of the tests' error tracker); the next command makes it anew.
	rm -rf .venv .venv-bugsink
