# Slipway: `make demo` brings it up on this machine, `make test` checks it. `make help` lists the rest.
PY := .venv/bin/python
# What plays the Kubernetes cluster: `lite`, our own small one, or `real`, a control plane built with Go.
CLUSTER ?= lite
# Processes that share the tests (`tests/lanes.py`).
JOBS ?= $(shell n=$$(nproc); [ "$$n" -le 4 ] && echo "$$n" || echo 4)
# For the real control plane one more: a scenario waits for its cluster most of the time.
CLUSTER_JOBS ?= $$(($(JOBS) + 1))
# Where its tests lie: to look for them among all takes longer than most of them.
CLUSTER_TESTS := tests/scenarios tests/differential
.DEFAULT_GOAL := help
.PHONY: help demo control-plane demo-status demo-reset setup lint types contracts migrations test test-fast test-unit \
	test-integration test-browser test-cluster bench-quota bench-fit lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## PostgreSQL, Redis, Prometheus, the sandbox and the site; Ctrl-C stops everything; CLUSTER=real for more
	@exec $(PY) -m portal.demo up --cluster $(CLUSTER)

demo-status: setup ## what of the demo runs
	@$(PY) -m portal.demo status || true

demo-reset: setup ## clear the demo's data
	@$(PY) -m portal.demo reset

setup: ## make .venv from the lock file (nothing to do: nothing done)
	@scripts/bootstrap

control-plane: setup ## build the programs of CLUSTER=real with Go, once, into a cache outside the tree
	@$(PY) -m sandbox.real.build

lint: setup ## ruff
	@echo "== lint (ruff)"
	@$(PY) -m ruff check --quiet .

types: setup ## mypy, strict
	@echo "== types (mypy, strict)"
	@$(PY) -m mypy

contracts: setup ## which package may import which
	@echo "== import contracts"
	@.venv/bin/lint-imports

migrations: setup ## models and migrations agree
	@echo "== migrations"
	@$(PY) manage.py makemigrations --check --dry-run

test: setup ## everything, as CI runs it; ARGS="-k name" narrows the tests
	@$(PY) -m portal.demo install postgres redis prometheus chromium
	@$(MAKE) --no-print-directory lint types contracts migrations
	@echo "== control plane (for the scenarios on the real ground)"
	@$(PY) -m sandbox.real.build --where-possible
	@echo "== tests (unit, integration, browser, scenarios)"
	@$(PY) -m pytest -n $(JOBS) $(ARGS) || { \
		echo "== once more, what failed above: on a loaded machine a wait may run out (look at it even if it passes now)"; \
		$(PY) -m pytest --last-failed --last-failed-no-failures=none $(ARGS); }

test-fast: setup ## the tests that need no server, for the inner loop
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(PY) -m pytest -q -m "not integration" \
		-p pytest_django.plugin -p pytest_timeout -p _hypothesis_pytestplugin $(ARGS)

test-unit: test-fast

test-integration: setup ## the tests that need PostgreSQL, Redis or Prometheus
	@$(PY) -m pytest -m "integration and not browser" $(ARGS)

test-cluster: setup control-plane ## the scenarios on the real control plane; lite plays only what is compared with it
	@$(PY) -m portal.demo install postgres redis prometheus
	@$(PY) -m pytest -n $(CLUSTER_JOBS) -m cluster $(CLUSTER_TESTS) $(ARGS)

test-browser: setup ## Chromium on a running stack
	@$(PY) -m pytest -m browser $(ARGS)

bench-quota: setup ## try to overshoot a quota over many connections, and what its guards cost; ARGS="--transactions 5000"
	@$(PY) -m bench.quota $(ARGS)

bench-fit: setup ## the memory estimate beside what real engines reported, and what a check costs; ARGS="--write"
	@$(PY) -m bench.fit $(ARGS)

lock: setup ## pin requirements/*.in again, with hashes and without registry addresses
	@scripts/lock
