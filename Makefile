# Everything here needs only python3 (3.11 to 3.13) and make; the rest is set up in .venv.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
LOCKING := --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header
export DO_NOT_TRACK := 1
# With it, each process of the tests would compile the whole engine again.
unexport PYTHONDONTWRITEBYTECODE
# The tests of `make fast`: pure modules, the cascade on a socket, and the ledger on SQLite.
FAST := $(addprefix tests/test_,$(addsuffix .py,architecture help cli_imports output prose docs text yaml records steps \
	checks prompts tokens catalog rules router budget certificates correctness golden faults limits \
	cascade gateway ledger spool testing progress))

# In a terminal the tools of the recipe show bars. Elsewhere a line every 5 seconds says that it goes on; the sleep has no
# output of its own, so that it keeps no pipe open.
define with_progress
quiet=; if ! test -t 2; then quiet=-q; started=$$SECONDS; \
	while sleep 5 > /dev/null 2>&1; do echo "$$(printf '%4d' $$((SECONDS - started))) s  $(1)"; done & \
	trap "kill $$! 2> /dev/null" EXIT; fi
endef

.PHONY: help demo ui fast test ui-test real-model server-test batch-kill-test oncall-test oncall-week desk-test scale-test wheel wheel-test check lint format types docs docs-serve docs-reference bench bench-large fuzz lock clean
.DEFAULT_GOAL := help

help:            ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "tierwise needs Python 3.11 to 3.13; set PYTHON=/path/to/one"; exit 1; }
	@test -x $(BIN)/python || { echo "creating the environment .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing $$(grep -c '^[a-z0-9].*==' requirements.lock) packages into .venv (a minute or more)"
	@$(call with_progress,installing); \
		$(BIN)/python -m pip install -q --disable-pip-version-check uv && \
		$(BIN)/uv pip install $$quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock && \
		$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@echo "compiling tierwise"
	@$(BIN)/python -m compileall -q src  # with PYTHONDONTWRITEBYTECODE set, each command would compile again
	@touch $@

demo: .venv/ready  ## Set everything up and run the main job on real local models
	@echo "looking for the weights of three models (1.7 GB, downloaded once)"
	@$(BIN)/tierwise fetch e5-small qwen-0.5b qwen-1.5b
	@set -o pipefail; $(BIN)/tierwise train classify | sed -n 1p
	$(BIN)/tierwise run support_inbox --source examples/inbox

ui: .venv/ready  ## Show the runs in Prefect's UI
	@$(BIN)/tierwise ui

fast: .venv/ready  ## Run a subset of the tests in under a minute, for daily work
	$(BIN)/pytest -n 2 --maxfail=5 -m "not real_model and not ui" -k "not postgresql" $(FAST)

test: .venv/ready  ## Set everything up and run the tests (no key, no weights, no network)
	$(BIN)/pytest -n 4 --maxfail=10 -m "not real_model and not ui"

ui-test: .venv/ready  ## Open Prefect's pages and the HTML report in a browser (needs chromium; skipped without it)
	$(BIN)/pytest -m ui tests/ui

real-model: .venv/ready  ## Run the test on the real 0.5B model
	@$(BIN)/tierwise fetch qwen-0.5b
	$(BIN)/pytest -m real_model

server-test: .venv/ready  ## Run the test that starts a real server and worker and runs deployments
	TIERWISE_SERVER_TEST=1 $(BIN)/pytest tests/test_up.py tests/test_up_access.py tests/test_comeback.py tests/test_alerts.py

batch-kill-test: .venv/ready  ## Kill runs with provider batches at 20 random moments, on SQLite and PostgreSQL (5 min)
	$(BIN)/python -m tests.batch_kill

oncall-test: .venv/ready  ## Outages, signals and kills on a real server and worker, with a table at the end (25 min)
	$(BIN)/python -m tests.oncall $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) $(if $(FULL),--full)

oncall-week: .venv/ready  ## A week of a watched folder in 20 minutes, with outages and a reboot
	$(BIN)/python -m tests.oncall --week $(if $(SEED),--seed $(SEED))

desk-test: .venv/ready  ## Two reviewers, the web server and a run at once, 1,000 decisions, processes killed at random, on both databases
	TIERWISE_DESK_DECISIONS=1000 $(BIN)/pytest -n 0 -s tests/test_desk_kills.py tests/test_desk_server_kills.py

wheel: .venv/ready  ## Build the wheel into dist/: the engine and the starter project
	$(BIN)/python -m build --wheel --no-isolation

wheel-test: .venv/ready  ## Test the wheel alone in fresh environments: init, demo, test, and the tutorial
	TIERWISE_WHEEL_TEST=1 $(BIN)/pytest tests/test_wheel.py

scale-test: .venv/ready  ## Kill a worker half-way on Dask and on Ray, with PostgreSQL; installs both first
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements-scale.lock
	TIERWISE_SCALE_TEST=1 $(BIN)/pytest tests/test_scale.py

check: .venv/ready  ## Find the faults in rules, catalog, prompts, flows and evidence
	@$(BIN)/tierwise check

lint: .venv/ready  ## Lint and check the format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/ready  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/ready  ## Check the types
	$(BIN)/mypy

docs: .venv/ready  ## Build the documentation into site/; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: .venv/ready  ## Serve the documentation on http://127.0.0.1:8000 with live reload
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

docs-reference: .venv/ready  ## Write the parts of docs/ that come from the code
	$(BIN)/python -m docs.reference
	$(BIN)/python -m docs.architecture

bench: .venv/ready  ## Run the short benchmarks
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.commands
	$(BIN)/python -m benchmarks.routing
	$(BIN)/python -m benchmarks.replay mmlu --data ../shared/data/outcomes
	$(BIN)/python -m benchmarks.replay gsm8k --data ../shared/data/outcomes
	$(BIN)/python -m benchmarks.replay frugalml --data ../shared/data/outcomes --seeds 3
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.overhead --documents 256 --in-flight 32

bench-large: .venv/ready  ## Run the long benchmarks: kills, overhead, memory, a large deployment
	$(BIN)/python -m benchmarks.kill
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.whole_run
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.deployment

fuzz: .venv/ready  ## Feed damaged input to every reader, SECONDS=60 each
	$(BIN)/python -m benchmarks.fuzz --seconds $(or $(SECONDS),60)

lock: .venv/ready  ## Resolve the dependencies again
	$(BIN)/uv pip compile -q pyproject.toml --extra ocr --extra otel --extra postgres --extra dev $(LOCKING) -o requirements.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra dask --extra ray -c requirements.lock $(LOCKING) -o requirements-scale.lock

clean:           ## Remove the environment and the files of runs
	rm -rf .venv .tierwise out dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
